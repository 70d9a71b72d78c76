"""The statistics that tell states apart, at one layer of a taxed capability, held out by group."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.sampling import draw_foil
from taxlens.analysis.interventions.steering import Ablation, Steering, fit_steering
from taxlens.analysis.scoring.shared_prompt_table import ChoiceTable
from taxlens.analysis.state.upper_layers import Half, probability
from taxlens.analysis.state.verdict import UNDECODABLE, Evidence, judge
from taxlens.core.errors import UsageError
from taxlens.core.stats.intervals import group_weights, ratio_interval
from taxlens.probes.pair.probe_pair import probe_pair
from taxlens.probes.rows.labels import ProbeWarning
from taxlens.probes.similarity.procrustes import orthogonal_map

RANKS = (1, 4, 16)
"""Ranks of the steering."""


@dataclass(slots=True, eq=False)
class Bench:
    """Both models on one suite's rows, with folds that keep groups whole.

    Args:
        base, aligned: the two models' halves.
        folds: fold of each item.
        label: "correct" (right against wrong choice, read at the choice's last token), "answer" (which answer), or
            the name of a label of the items; the latter two are read at the last prompt token.
        other: another suite's halves, for control vectors.
        draws, seed: of the group bootstrap.
    """

    base: Half
    aligned: Half
    folds: np.ndarray
    label: str = "correct"
    other: tuple[Half, Half] | None = None
    draws: int = 1000
    seed: int = 0
    probe: str = "ridge"
    steerings: dict[tuple[int, int], Steering] = field(default_factory=dict)

    @property
    def table(self) -> ChoiceTable:
        """The rows."""
        return self.aligned.table

    @property
    def groups(self) -> np.ndarray:
        """Group of each item."""
        return self.table.groups

    def lost(self) -> np.ndarray:
        """Probability of the right choice that each item lost, float64 [items]."""
        return probability(self.table, self.base.logp) - probability(self.table, self.aligned.logp)

    def restored(self, name: str, logp: np.ndarray, *, control: str = "") -> Evidence:
        """Share of the tax that scores return, as evidence."""
        back = probability(self.table, logp) - probability(self.table, self.aligned.logp)
        share = ratio_interval(back, self.lost(), self.groups, draws=self.draws, seed=self.seed)
        return Evidence(name, share.value, share.low, share.high, control)

    def fold_rows(self, batch: int) -> np.ndarray:
        """Fold of each row of a batch."""
        return self.folds[self.table.by_item(batch)]

    def tokens(self, half: Half, layer: int, where: Callable[[int], torch.Tensor], *, fold: int) -> np.ndarray:
        """Streams outside a fold at chosen positions, float64 [tokens, d]."""
        rows = []
        for batch, stream in enumerate(half.streams[layer]):
            keep = where(batch) & torch.as_tensor(self.fold_rows(batch) != fold)[:, None]
            rows.append(stream[keep])
        return torch.cat(rows).double().numpy()

    def held_out(
        self, score: Half, layer: int, change: Callable[[int, torch.Tensor], torch.Tensor], source: Half
    ) -> np.ndarray:
        """Scores of `score`'s upper layers on `source`'s stream, changed row by row by the fold that the row is in."""
        folds = sorted(set(self.folds.tolist()))

        def put(batch: int) -> torch.Tensor:
            stream, mine = source.streams[layer][batch], self.fold_rows(batch)
            changed = stream.clone()
            for fold in folds:
                rows = torch.as_tensor(mine == fold)
                if rows.any():
                    changed[rows] = change(fold, stream[rows]).to(stream.dtype)
            first = (self.table.positions[batch] == 0)[..., None]
            return torch.where(first, stream, changed)

        return score.above(layer, put)


def layer_evidence(bench: Bench, layer: int, *, ranks: Sequence[int] = RANKS) -> list[Evidence]:
    """Every statistic of one layer: I, S, Z by rank with its controls, gain and U.

    D and X come from `probe_evidence`, which reads all layers at once. Where I alone says that the stream is still
    as good as the base's, the others are not run: there is nothing to bring back yet.
    """
    found: list[Evidence | None] = [inject(bench, layer)]
    if judge([one for one in found if one]).state == "intact":
        return [one for one in found if one]
    found += [mapped_base(bench, layer), *steered(bench, layer, ranks=ranks)]
    found += [gain(bench, layer), removed(bench, layer)]
    return [one for one in found if one is not None]


def inject(bench: Bench, layer: int) -> Evidence:
    """I: the base's stream put into the aligned model's upper layers."""
    return bench.restored("I", bench.aligned.above(layer, lambda batch: bench.base.streams[layer][batch]))


def mapped_base(bench: Bench, layer: int) -> Evidence:
    """S: the aligned stream, turned to the base's by a rotation fitted out of fold, in the base's upper layers."""
    maps = {}
    for fold in sorted(set(bench.folds.tolist())):
        x, y = (bench.tokens(half, layer, bench.table.real, fold=fold) for half in (bench.aligned, bench.base))
        maps[fold] = rotation(x, y)

    def change(fold: int, stream: torch.Tensor) -> torch.Tensor:
        turn, x_mean, y_mean = (torch.as_tensor(part, dtype=stream.dtype) for part in maps[fold])
        return (stream - x_mean) @ turn + y_mean

    return bench.restored("S", bench.held_out(bench.base, layer, change, bench.aligned))


def rotation(x: np.ndarray, y: np.ndarray, *, prior: float = 0.01) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The orthogonal map [d, d] that best takes centred x to centred y, and both means.

    Directions in which the rows say little are left as they are: `prior` times the mean eigenvalue is added to
    the diagonal of the cross-covariance of orthogonal Procrustes.
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    cross = (x - x_mean).T @ (y - y_mean)
    size = np.sqrt(np.square(x - x_mean).sum() * np.square(y - y_mean).sum())
    cross[np.diag_indices_from(cross)] += prior * size / len(cross)
    return orthogonal_map(cross)[0], x_mean, y_mean


def steered(bench: Bench, layer: int, *, ranks: Sequence[int] = RANKS) -> list[Evidence]:
    """Z by rank: steering fitted out of fold; with random directions, and with another suite's vector, as controls."""
    found = []
    for rank in ranks:
        fitted = {fold: _steering(bench, layer, rank, fold) for fold in sorted(set(bench.folds.tolist()))}
        found.append(bench.restored(f"Z{rank}", _steered(bench, layer, fitted)))
        if rank == 1 and found[-1].value >= 0.5:
            found += ablated(bench, layer, fitted)
    control = {fold: one.random(bench.seed + 1 + fold) for fold, one in fitted.items()}
    found.append(bench.restored(f"Z{ranks[-1]}", _steered(bench, layer, control), control="random"))
    if bench.other is not None:
        base, aligned = (_asked_tokens(half, layer) for half in bench.other)
        vector = fit_steering(aligned, base, rank=1, layer=layer)
        found.append(bench.restored("Z1", _steered(bench, layer, dict.fromkeys(fitted, vector)), control="other suite"))
    return found


def ablated(bench: Bench, layer: int, shifts: dict[int, Steering]) -> list[Evidence]:
    """A: the one direction that a constant vector moves along, put where base's mean lies; and a random direction."""
    rng = np.random.default_rng(bench.seed + 1)
    found = []
    for control in ("", "random"):
        fitted = {}
        for fold, one in shifts.items():
            direction = rng.standard_normal(len(one.shift)) if control else one.shift
            fitted[fold] = Steering.ablation(direction, one.centre + one.shift, layer=layer)
        found.append(bench.restored("A", _steered(bench, layer, fitted), control=control))
        if not control:
            bench.steerings[layer, 0] = fitted[max(fitted)]
    return found


def _steering(bench: Bench, layer: int, rank: int, fold: int) -> Steering:
    x, y = (bench.tokens(half, layer, bench.table.asked, fold=fold) for half in (bench.aligned, bench.base))
    bench.steerings[layer, rank] = fitted = fit_steering(x, y, rank=rank, layer=layer)
    return fitted


def _steered(bench: Bench, layer: int, fitted: dict[int, Steering]) -> np.ndarray:
    return bench.held_out(bench.aligned, layer, lambda fold, stream: fitted[fold].apply(stream), bench.aligned)


def _asked_tokens(half: Half, layer: int) -> np.ndarray:
    streams = [stream[half.table.asked(batch)] for batch, stream in enumerate(half.streams[layer])]
    return torch.cat(streams).double().numpy()


def labelled(bench: Bench, half: Half, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Streams [rows, d], labels [rows] and items [rows] of the bench's label at one layer."""
    table, found = half.table, {}
    for batch, lines in enumerate(table.lines):
        stream = half.streams[layer][batch]
        for number, line in enumerate(lines):
            gold, item = int(table.gold[line.item]), table.suite.items[table.items[line.item]]
            if bench.label == "answer":
                asked = {gold: (0, line.starts, item.choices[gold].strip())}
            elif bench.label != "correct":
                asked = {gold: (0, line.starts, str(item.labels[bench.label]))} if bench.label in item.labels else {}
            else:
                foil = draw_foil(table.suite.name, item, bench.seed)
                asked = {gold: (1, line.ends, 1), foil: (0, line.ends, 0)}
            for choice, (place, places, label) in asked.items():
                if choice in places:
                    found[line.item, place] = (stream[number, places[choice]], label)
    keys = sorted(found)
    streams = torch.stack([found[key][0] for key in keys]).double().numpy()
    return streams, np.array([found[key][1] for key in keys], dtype=object), np.array([owner for owner, _ in keys])


def probe_evidence(bench: Bench, layers: Sequence[int], *, probe: str = "ridge") -> dict[int, list[Evidence]]:
    """D and X of every layer: probes refitted on aligned, and the base's read on aligned, over the base's own.

    Chance-corrected, out of fold, numerator and denominator resampled together. Left out, with a note, at
    layers where the base's own probe reads next to nothing.
    """
    try:
        found = _probed(bench, layers, probe)
    except UsageError as error:
        note = str(error).splitlines()[0]
        return {layer: [Evidence(s, np.nan, np.nan, np.nan, note=note) for s in "DX"] for layer in layers}
    control = "" if probe == "ridge" else "network"
    evidence: dict[int, list[Evidence]] = {}
    for layer in layers:
        own, fresh, transferred = (
            found.readings[key][layer]
            for key in (("base", "base", "none"), ("aligned", "aligned", "none"), ("base", "aligned", "none"))
        )
        evidence[layer] = [_over("D", fresh, own, found.chance, control)]
        if probe == "ridge":
            evidence[layer].append(_over("X", transferred, own, found.chance, control))
    return evidence


def base_reading(bench: Bench, layers: Sequence[int]) -> float:
    """How well the base's own probe reads the bench's label at its best layer: 0 at chance, 1 without error."""
    try:
        found = _probed(bench, layers, "ridge")
    except UsageError:
        return 0.0
    best = max(found.readings["base", "base", "none"][layer].value for layer in layers)
    return (best - found.chance) / (1 - found.chance)


def _probed(bench: Bench, layers: Sequence[int], probe: str) -> Any:
    read = {layer: (labelled(bench, bench.base, layer), labelled(bench, bench.aligned, layer)) for layer in layers}
    _, labels, items = read[layers[0]][0]
    rows = {layer: (one[0], two[0]) for layer, (one, two) in read.items()}
    draws = min(bench.draws, 300)  # of an AUC over every pair of rows and class: the dear part of a probe
    options: dict[str, Any] = {"permutations": 0, "shuffles": 0, "bootstrap": draws, "seed": bench.seed}
    labels = _recurring(labels, bench.groups[items])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        return probe_pair(rows, labels, bench.groups[items], probe=probe, **options)


def _recurring(labels: np.ndarray, groups: np.ndarray, *, least: int = 3) -> np.ndarray:
    """Labels with those classes left out (None) that occur in fewer groups than can be split into folds."""
    seen = {name: len(set(groups[labels == name])) for name in set(labels.tolist())}
    return np.array([name if seen[name] >= least else None for name in labels.tolist()], dtype=object)


def _over(name: str, reading: Any, own: Any, chance: float, control: str) -> Evidence:
    if own.value - chance < UNDECODABLE:
        note = f"the base's probe reads {own.value:.2f} against a chance of {chance:.2f}"
        return Evidence(name, np.nan, np.nan, np.nan, control, note)
    share = (reading.draws - chance) / np.maximum(own.draws - chance, 0.05)
    low, high = np.nanquantile(share, [0.025, 0.975])
    return Evidence(name, float((reading.value - chance) / (own.value - chance)), float(low), float(high), control)


def gain(bench: Bench, layer: int) -> Evidence | None:
    """How large the label's class differences are in aligned, over base, relative to the spread within classes.

    1 where the capability's directions are as strong as in the base, below 1 where they were weakened. Class
    means of two halves of the groups are multiplied, so that noise adds nothing.
    """
    draws = group_weights(bench.groups, draws=100, seed=bench.seed)
    half = np.unique(bench.groups.astype(str), return_inverse=True)[1] % 2
    sizes = []
    for one in (bench.base, bench.aligned):
        streams, labels, items = labelled(bench, one, layer)
        weights = np.vstack([np.ones((1, len(items))), draws[:, items]])
        sizes.append(_class_size(streams, labels, half[items], weights))
    share = sizes[1] / np.where(sizes[0] > 0, sizes[0], np.nan)
    if not np.isfinite(share[0]):
        return None
    drawn = share[1:][np.isfinite(share[1:])]
    if len(drawn) < 20:
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Evidence("gain", float(share[0]), float(low), float(high))


def _class_size(streams: np.ndarray, labels: np.ndarray, half: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Size of the class differences over the spread within classes, for each row of weights [draws, rows]."""
    classes, index = np.unique(labels.astype(str), return_inverse=True)
    member = np.eye(len(classes))[index]
    inner = streams - member @ (member.T @ streams / np.maximum(member.sum(axis=0), 1)[:, None])
    spread = np.sqrt(np.square(inner).sum() / max(1, len(streams) - len(classes)))
    found = np.full(len(weights), np.nan)
    for draw, weight in enumerate(weights):
        means = []
        for side in (0, 1):
            mine = member * (weight * (half == side))[:, None]
            count = mine.sum(axis=0)
            means.append(np.where(count[:, None] > 0, mine.T @ streams / np.maximum(count, 1e-12)[:, None], np.nan))
        both = np.isfinite(means[0]).all(axis=1) & np.isfinite(means[1]).all(axis=1)
        if both.sum() >= 2:
            left, right = (mean[both] - mean[both].mean(axis=0) for mean in means)
            found[draw] = np.sqrt(max(0.0, float((left * right).sum()))) / spread
    return found


def removed(bench: Bench, layer: int, *, most: int = 8) -> Evidence | None:
    """U: what removing the base's label directions costs aligned, over what it costs the base."""
    streams, labels, _ = labelled(bench, bench.base, layer)
    classes = np.unique(labels.astype(str))
    means = np.stack([streams[labels.astype(str) == name].mean(axis=0) for name in classes])
    basis = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][: min(most, len(classes) - 1)]
    drops = []
    for half in (bench.base, bench.aligned):
        centre = _asked_tokens(half, layer).mean(axis=0)
        ablation = Ablation(layer, basis, centre)
        logp = half.above(layer, lambda b, h=half, a=ablation: a.apply(h.streams[layer][b]))
        drops.append(probability(bench.table, half.logp) - probability(bench.table, logp))
    if drops[0].mean() < 0.05:
        return None
    share = ratio_interval(drops[1], drops[0], bench.groups, draws=bench.draws, seed=bench.seed)
    return Evidence("U", share.value, share.low, share.high)
