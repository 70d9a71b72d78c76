"""Every method that locates a tax, asked the same question: how much of it does each component explain?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.truth.oracle import coalition_values, shapley
from benchmarks.truth.plants.parts import Weights, component_of, norm, players, select, subtract
from benchmarks.truth.scoring import Exam, marks
from taxlens.activations.items.items import Suite
from taxlens.activations.models.pair import ModelPair
from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.interventions.patching import patch_effects
from taxlens.analysis.interventions.shapley import sampled_shapley
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.probes.similarity.similarity import similarity

METRIC = "probability"


@dataclass(frozen=True, slots=True)
class Question:
    """A pair and a suite: what a method is asked.

    Attributes:
        pair: base and aligned.
        suite: the taxed suite.
        parts: components that may be blamed, in network order.
        base, aligned: the same weights by name.
    """

    pair: ModelPair
    suite: Suite
    parts: tuple[str, ...]
    base: Weights
    aligned: Weights

    @property
    def change(self) -> Weights:
        """Aligned minus base."""
        return subtract(self.aligned, self.base)

    @property
    def moved(self) -> list[str]:
        """Components that changed."""
        found = {component_of(n) for n, v in self.change.items() if v.abs().max() > 0}
        return [part for part in self.parts if part in found]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method says.

    Attributes:
        effects: component to its share of the loss; what it does not name is 0.
        closes: whether the effects are meant to sum to the tax.
        passes: forward passes over the suite (a gradient counts three).
    """

    effects: Mapping[str, float]
    closes: bool
    passes: int


def question(model: PreTrainedModel, pair: ModelPair, suite: Suite) -> Question:
    """What to ask of a loaded pair."""
    sides = [
        {name: value.detach() for name, value in side.model.named_parameters()} for side in (pair.base, pair.aligned)
    ]
    return Question(pair, suite, tuple(players(model)), *sides)


def exact(model: PreTrainedModel, asked: Question, sheet: Exam) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact Shapley effects by item [items, parts], each item's tax [items], and the mean of every coalition.

    All in probability of the gold choice; bit i of a coalition's index says whether the i-th moved component has
    its change.
    """
    moved = asked.moved
    values = coalition_values(asked.base, asked.change, moved, lambda weights: marks(model, weights, sheet)[METRIC])
    found = np.zeros((values.shape[1], len(asked.parts)))
    for part, shares in zip(moved, -shapley(values, len(moved))):
        found[:, asked.parts.index(part)] = shares
    return found, values[0] - values[-1], values.mean(1)


def sampled(table: np.ndarray, moved: Sequence[str], *, seed: int, pairs: int = 4) -> dict[str, Answer]:
    """Sampled Shapley effects, from the table of all coalitions (only those that the orders visit count as passes)."""
    found = sampled_shapley(lambda s: -table[sum(1 << i for i in s)], len(moved), pairs=pairs, seed=seed)
    shares = dict(zip(moved, found.values.tolist()))
    return {f"sampled Shapley, {pairs} pairs of orders": Answer(shares, True, found.coalitions)}


def by_path(asked: Question) -> Answer:
    """Weight-path attribution."""
    found = attribute(asked.pair, asked.suite, metrics=(METRIC,), levels=("component",), bootstrap=10, tokens=False)
    closure = found.closure_frame().iloc[0]
    return _read(found, asked, closes=True, passes=int(3 * closure["gradients"] + closure["forwards"]))


def by_gradient(asked: Question) -> Answer:
    """One gradient at the aligned weights."""
    found = gradient_effects(
        asked.pair, asked.suite, metrics=(METRIC,), levels=("component",), bootstrap=10, tokens=False
    )
    return _read(found, asked, closes=False, passes=3)


def by_middle_gradient(asked: Question) -> Answer:
    """One gradient half way."""
    found = gradient_effects(
        asked.pair, asked.suite, t=0.5, metrics=(METRIC,), levels=("component",), bootstrap=10, tokens=False
    )
    return _read(found, asked, closes=False, passes=3)


def _read(found: Any, asked: Question, *, closes: bool, passes: int) -> Answer:
    names, values = found.effects(asked.suite.name, METRIC)
    return Answer(dict(zip(names, values.mean(0).tolist())), closes, passes)


def swaps(asked: Question) -> dict[str, Answer]:
    """Single grafts, single restores, and their normalised mean (weight patching, Weight Patching 2604.13694)."""
    measure = ChoiceMeasure(asked.pair, (asked.suite,), metrics=(METRIC,))
    found = graft_effects(asked.pair, measure, groups=measure.groups, units=asked.moved, draws=10)
    key, count = (asked.suite.name, METRIC), len(asked.moved)
    return {
        "graft": Answer(dict(zip(found.graft.units, found.graft.mean(*key))), False, count + 2),
        "restore": Answer(dict(zip(found.restore.units, found.restore.mean(*key))), False, count + 2),
        "graft and restore, normalised": Answer(
            dict(zip(found.graft.units, found.normalised(*key))), True, 2 * count + 2
        ),
    }


def patches(asked: Question) -> dict[str, Answer]:
    """Cross-model activation patching: a component's cause alone, and the whole of what it carries."""
    measure = ChoiceMeasure(asked.pair, (asked.suite,), metrics=(METRIC,))
    cause, carrier = patch_effects(asked.pair, measure, groups=measure.groups, draws=10)
    key = (asked.suite.name, METRIC)
    own, carried = cause.mean(*key), carrier.mean(*key)
    return {
        "patch, cause": Answer(dict(zip(cause.units, own)), False, cause.forwards),
        "activation patch": Answer(dict(zip(cause.units, own + carried)), False, cause.forwards),
    }


def norms(asked: Question) -> dict[str, Answer]:
    """How far each component moved, plainly and relative to its own size, scaled to sum to the tax of 1."""
    plain = {part: norm(select(asked.change, [part])) for part in asked.parts}
    relative = {part: plain[part] / norm(select(asked.base, [part])) for part in asked.parts}
    return {
        "norm of the change": Answer(plain, False, 0),
        "relative norm": Answer(relative, False, 0),
    }


@torch.no_grad()
def layer_drops(asked: Question, sheet: Exam) -> dict[str, Answer]:
    """Per-layer CKA drop and base-probe drop, each step shared by the block's two parts."""
    rows = slice(0, len(sheet.texts), sheet.choices)
    ids, at = sheet.texts.ids[rows], sheet.texts.start[rows] - 1
    streams = []
    for side in (asked.pair.base, asked.pair.aligned):
        states = side.model(input_ids=ids, output_hidden_states=True).hidden_states
        streams.append([s[torch.arange(len(ids)), at].double().numpy() for s in states])
    groups = np.array([item["group"] for item in sheet.items])
    labels = np.array([item["choices"][item["gold"]] for item in sheet.items])
    cka, probe = [], []
    for x, y in zip(*streams):
        cka.append(_cka_drop(x, y, groups))
        probe.append(_probe_loss(x, y, labels))
    return {
        "CKA drop by layer": Answer(_steps(cka, asked.parts), False, 2),
        "probe drop by layer": Answer(_steps(probe, asked.parts), False, 2),
    }


def _cka_drop(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """One less debiased CKA; 0 where every row is the same (the last token, before any block)."""
    if min(np.ptp(x, axis=0).max(), np.ptp(y, axis=0).max()) < 1e-9:
        return 0.0
    frame = similarity((x, y), groups, measures=("cka",)).to_frame()
    return 1 - float(frame.loc[frame["measure"] == "cka", "value"].iloc[0])


def _probe_loss(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> float:
    """What a ridge probe of the answer, fitted on the base, loses when it reads the aligned stream."""
    if np.ptp(x, axis=0).max() < 1e-9:
        return 0.0
    classes = np.unique(labels)
    target = (labels[:, None] == classes[None]).astype(float)
    centre = x.mean(0)
    gram = (x - centre).T @ (x - centre)
    weights = np.linalg.solve(gram + 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram)), (x - centre).T @ target)
    right = [float((classes[((z - centre) @ weights).argmax(1)] == labels).mean()) for z in (x, y)]
    return right[0] - right[1]


def _steps(levels: list[float], parts: tuple[str, ...]) -> dict[str, float]:
    """Increases from one layer to the next, halved between attention and feed-forward; the first is embed's."""
    found = {"embed": levels[0]}
    for layer, (before, after) in enumerate(itertools.pairwise(levels)):
        for kind in ("attn", "mlp"):
            found[f"{layer}.{kind}"] = (after - before) / 2
    return {part: found.get(part, 0.0) for part in parts}


SINGLE: Mapping[str, Callable[[Question], Answer]] = {
    "path": by_path,
    "one gradient at aligned": by_gradient,
    "one gradient half way": by_middle_gradient,
}


def every_method(asking: Callable[[], Question], sheet: Exam) -> dict[str, Callable[[], dict[str, Answer]]]:
    """What answers for all methods, by the name of the batch that gives them together.

    Args:
        asking: gives the question; called only when a batch is.
        sheet: the same items, encoded.
    """
    single = {name: (lambda name=name: {name: SINGLE[name](asking())}) for name in SINGLE}
    return {
        **single,
        "swaps": lambda: swaps(asking()),
        "patches": lambda: patches(asking()),
        "norms": lambda: norms(asking()),
        "drops": lambda: layer_drops(asking(), sheet),
    }
