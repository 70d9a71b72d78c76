"""The plants of the proving ground and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.truth.ground import checksum, made, pair_of, remembered, suite_of
from benchmarks.truth.methods import Answer, Question, every_method, exact, question, sampled
from benchmarks.truth.page.scores import mass, score
from benchmarks.truth.plants.acceptance import HIDDEN, alone, family_holds
from benchmarks.truth.plants.deletion import deletion_skill
from benchmarks.truth.plants.parts import Training, add, halved, norm, players, select, subtract, weights_of
from benchmarks.truth.plants.plants import Plant, accept, lectures, plant_decoy, plant_p1
from benchmarks.truth.scoring import Exam, exam
from benchmarks.truth.techniques.adapter import adapter_pair, plant_adapter
from benchmarks.truth.worlds import families
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from taxlens.core.stats.intervals import mean_interval
from taxlens.demo import resolve, truth

Builder = Callable[[PreTrainedModel, World, int, int], Plant]
"""(base, world, seed, steps) to a plant."""


def stretched(model: PreTrainedModel, parts: Sequence[str]) -> tuple[str, ...]:
    """Components named for a model of four blocks, in one of more: block i becomes block i * blocks / 4."""
    step = model.config.num_hidden_layers // 4
    return tuple(f"{int(layer) * step}.{kind}" for layer, kind in (part.split(".") for part in parts))


def _p1(larger: float) -> Builder:
    """A builder of P1; plants of one seed share harm and benefit, which are trained once."""

    def build(model: PreTrainedModel, world: World, seed: int, steps: int) -> Plant:
        harm, benefit, decoy = (stretched(model, parts) for parts in ARRANGEMENTS[seed % len(ARRANGEMENTS)])
        base = weights_of(model)

        def make() -> dict[str, Any]:
            plant = plant_p1(model, world, harm=harm, benefit=benefit, decoy=decoy, larger=0.0, steps=steps, seed=seed)
            return {name: dict(change) for name, change in plant.changes.items()}

        changes = made("P1-shared", make, checksum(base), seed, steps)
        parts = {"harm": harm, "benefit": benefit, "decoy": decoy if larger else ()}
        if larger:
            changes["decoy"] = plant_decoy(
                model,
                base,
                lectures(world, seed=seed),
                components=decoy,
                beside={**changes["harm"], **changes["benefit"]},
                size=larger * norm(changes["harm"]),
                training=Training(steps=2 * steps, seed=seed + 2, walk=True),
                seed=seed,
            )
        return Plant(base, changes, parts, taxed="facts")

    return build


def _family(make: Callable[..., Any], truths: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> Builder:
    """A builder that takes truth and decoy components, and the decoy's size, in turn by seed."""

    def build(model: PreTrainedModel, world: World, seed: int, steps: int) -> Plant:
        parts, decoy = (stretched(model, parts) for parts in truths[seed % len(truths)])
        harm = make(model, world, parts=parts, steps=steps, seed=seed)
        harm = harm[0] if isinstance(harm, tuple) else harm
        larger = DECOYS[seed % len(DECOYS)]
        return families.with_decoy(model, world, harm, parts, decoy=decoy, larger=larger, steps=steps, seed=seed)

    return build


DECOYS = (2.0, 1.0, 0.0)
"""Norm of the decoy over norm of the harm, by seed, for P2 and later (P1 has a family for each)."""
TWO_PARTS = (
    (("1.mlp", "2.mlp"), families.DECOY),
    (("2.mlp", "3.mlp"), ("0.attn", "0.mlp", "1.attn", "1.mlp")),
    (("0.mlp", "2.mlp"), ("0.attn", "1.attn", "3.attn", "3.mlp")),
    (("1.mlp", "3.mlp"), ("0.attn", "0.mlp", "2.attn", "3.attn")),
)
"""Components of two-part harm, and of its decoy, by seed."""


def _adapter(model: PreTrainedModel, world: World, seed: int, steps: int) -> Plant:
    """Harm and decoy as one adapter, on the components of the two-part families."""
    parts, decoy = (stretched(model, part) for part in TWO_PARTS[seed % len(TWO_PARTS)])
    larger = DECOYS[seed % len(DECOYS)]
    return plant_adapter(model, world, parts=parts, decoy=decoy, larger=larger, steps=steps, seed=seed)


ONE_PART = (
    (("2.mlp",), families.DECOY),
    (("1.mlp",), families.DECOY),
    (("3.mlp",), ("0.attn", "0.mlp", "1.attn", "1.mlp")),
)
"""The same for harm in one component."""
ALL_LAYERS = (
    (("0.mlp", "1.mlp", "2.mlp", "3.mlp"), ("0.attn", "3.attn")),
    (("0.attn", "1.attn", "2.attn", "3.attn"), ("0.mlp", "3.mlp")),
)
"""The same for harm over every layer."""
ARRANGEMENTS = (
    (("1.attn", "2.mlp"), ("1.mlp",), ("0.attn", "0.mlp", "3.attn", "3.mlp")),
    (("2.mlp",), ("1.mlp",), ("0.attn", "0.mlp", "1.attn", "3.mlp")),
    (("1.mlp",), ("2.mlp",), ("0.attn", "2.attn", "3.attn", "3.mlp")),
    (("2.attn", "3.mlp"), ("1.mlp",), ("0.attn", "0.mlp", "1.attn", "2.mlp")),
)
"""Components of harm, benefit and decoy, by seed."""


def _shipped(model: PreTrainedModel, world: World, seed: int, steps: int) -> Plant:
    """`demo:planted`, split by the components of its truth file."""
    base, found = weights_of(model), truth("demo:planted")["components"]
    change = subtract(weights_of(read_model(resolve("demo:planted"))), base)
    changes = {part: select(change, components) for part, components in found.items()}
    return Plant(base, changes, {part: tuple(c) for part, c in found.items()}, taxed="facts")


FAMILIES: Mapping[str, Builder] = {
    "P1, as shipped": _shipped,
    "P1, larger decoy": _p1(2.0),
    "P1, equal decoy": _p1(1.0),
    "P1, no decoy": _p1(0.0),
    "P2 redundant": _family(families.redundant_harm, TWO_PARTS),
    "P3 synergy": _family(families.joint_harm, TWO_PARTS),
    "P4 cancelling": _family(families.cancelling_harm, TWO_PARTS),
    "P5 spread": _family(families.spread_harm, ALL_LAYERS),
    "P6 rank one": _family(families.low_rank_harm, ONE_PART),
    "P8 hidden norm": _family(partial(families.hidden_harm, size=HIDDEN), ONE_PART),
    "P10 adapter": _adapter,
}


def thinned(sheet: Exam, items: int) -> Exam:
    """Evenly spread items of an exam: the same that `suite_of(items=...)` takes."""
    if items >= len(sheet.items):
        return sheet
    kept = [round(i * (len(sheet.items) - 1) / (items - 1)) for i in range(items)]
    rows = (np.array(kept)[:, None] * sheet.choices + np.arange(sheet.choices)).ravel()
    return Exam(sheet.texts.take(rows), sheet.gold[kept], sheet.choices, [sheet.items[i] for i in kept])


def plant_of(
    model: PreTrainedModel, world: World, family: str, *, seed: int, steps: int, folder: Path | None = None
) -> Plant:
    """A plant of a family, made once; rounded as its file is."""

    def make() -> dict[str, Any]:
        plant = FAMILIES[family](model, world, seed, steps)
        return {"changes": dict(plant.changes), "components": {k: list(v) for k, v in plant.components.items()}}

    parts = made(family.replace(", ", "-").replace(" ", "-"), make, family, seed, steps, base=folder)
    base, exactly = weights_of(model), family.startswith("P10")  # an adapter's file keeps float32
    changes = {k: v if exactly else subtract(halved(add(base, v)), base) for k, v in parts["changes"].items()}
    changes = {k: {n: c for n, c in v.items() if n in parts["changes"][k]} for k, v in changes.items()}
    return Plant(base, changes, {k: tuple(v) for k, v in parts["components"].items()}, taxed="facts")


def prove(
    model: PreTrainedModel,
    world: World,
    family: str,
    *,
    seed: int,
    steps: int,
    items: int,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Acceptance, exact Shapley effects and the scores of every method on one plant.

    Args:
        model: the base.
        world: its world.
        family: one of `FAMILIES`.
        seed: of the draws, the components of truth and decoy, and the decoy's size.
        steps: training steps of each change.
        items: items that methods are asked about.
        folder: where the base lies; the embedded base's folder unless given.
    """
    kept = partial(remembered, base=folder)
    name, key = family.replace(", ", "-").replace(" ", "-"), (family, seed, steps, items)
    plant = plant_of(model, world, family, seed=seed, steps=steps, folder=folder)
    parts = players(model)
    moved = [p for p in parts if any(bool(v.any()) for c in plant.changes.values() for v in select(c, [p]).values())]

    @cache
    def asking() -> Question:
        if family.startswith("P10"):
            pair = adapter_pair(plant, base=folder or resolve("demo:base"))
        else:
            pair = pair_of(model, plant.aligned, name="plant", base=folder)
        return question(model, pair, suite_of(plant.taxed, items=items))

    sheet = thinned(exam(world, plant.taxed), items)

    def judge() -> dict[str, Any]:
        judged = accept(model, world, plant)
        return asdict(judged) | {"accepted": judged.accepted}

    def shares() -> list[list[list[float]] | list[float]]:
        return [part.tolist() for part in exact(model, asking(), sheet)]

    effects, taxes, table = (np.array(part) for part in kept(f"{name}-exact", shares, *key))
    tax, oracle = float(taxes.mean()), dict(zip(parts, effects.mean(0).tolist()))
    rows = [
        _exact_row(oracle, plant.truth, passes=2 ** len(moved)) | {"deletion": deletion_skill(table, oracle, moved)}
    ]
    said = _plain(sampled(table, moved, seed=seed))
    for batch, ask in every_method(asking, sheet).items():
        said |= kept(f"{name}-{batch.split()[0]}", lambda ask=ask: _plain(ask()), *key, batch)
    for method, answer in said.items():
        found = score(answer["effects"], oracle, plant.truth, tax=tax, passes=answer["passes"])
        deletion = deletion_skill(table, answer["effects"], moved)
        rows.append({"method": method, "closes": answer["closes"], "deletion": deletion} | asdict(found))
    singles, judged = alone(table, moved, plant.truth), kept(f"{name}-acceptance", judge, *key)
    holds = family_holds(family, singles, _harm_facts(plant))
    groups = [item["group"] for item in sheet.items]
    return {
        "family": family, "seed": seed, "truth": list(plant.truth), "tax": tax, "oracle": oracle, "rows": rows,
        "decoy": bool(plant.changes.get("decoy")), "alone": singles, "players": moved,
        "acceptance": judged | {"two_tests": judged["accepted"], "accepted": judged["accepted"] and holds},
        "coverage": kept(f"{name}-coverage", lambda: coverage(effects, groups, seed=seed), *key),
    }  # fmt: skip


def _harm_facts(plant: Plant) -> dict[str, Any]:
    """Largest rank of a harmed matrix's change, float16 rounding left out, and the norm of the whole harm."""
    ranks = [int(torch.linalg.matrix_rank(c, rtol=0.05)) for c in plant.changes["harm"].values() if c.ndim == 2]
    return {"rank": max(ranks), "norm": norm(plant.changes["harm"])}


def _plain(answers: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
    """Answers as JSON values."""
    return {
        name: {"effects": {k: float(v) for k, v in a.effects.items()}, "closes": a.closes, "passes": a.passes}
        for name, a in answers.items()
    }


def _exact_row(oracle: Mapping[str, float], planted: tuple[str, ...], *, passes: int) -> dict[str, Any]:
    """The oracle's own row."""
    on = np.array([name in planted for name in oracle])
    first = set(sorted(oracle, key=lambda name: -abs(oracle[name]))[: len(planted)])
    return {
        "method": "exact Shapley", "closes": True, "mass": mass(np.array(list(oracle.values())), on),
        "relative_mass": 1.0, "distance": 0.0, "raw_distance": 0.0, "closure": 1.0, "top": first == set(planted),
        "passes": passes,
    }  # fmt: skip


def coverage(effects: np.ndarray, groups: list[str], *, seed: int, worlds: int = 100) -> list[int]:
    """How often the interval of an effect holds its true mean, where the groups at hand are the population.

    New suites of as many groups are drawn with replacement from the groups; [held, asked].
    """
    rng = np.random.default_rng([seed, 51])
    names = sorted(set(groups))
    rows = {name: [i for i, g in enumerate(groups) if g == name] for name in names}
    moved = [k for k in range(effects.shape[1]) if np.ptp(effects[:, k]) > 0]
    held = asked = 0
    for world in range(worlds):
        drawn = rng.choice(len(names), size=len(names))
        items = [i for d in drawn for i in rows[names[d]]]
        copies = [f"{n}" for n, d in enumerate(drawn) for _ in rows[names[d]]]
        for k in moved:
            found = mean_interval(effects[items, k], copies, draws=200, seed=world)
            held += found.low <= effects[:, k].mean() <= found.high
            asked += 1
    return [int(held), asked]
