"""Swap-and-refit permutations: is a pair's drop more than a relabelling of which model a row came from gives?"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taxlens.probes.rows.auc import FoldAuc
from taxlens.probes.rows.folds import Folds, group_folds
from taxlens.probes.rows.labels import Labels

BASIS = 64
_CHUNK = 250
_GAP = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class SwapNull:
    """A layer's drop and its distribution under swaps of whole groups between the models.

    Args:
        observed: drop (base minus aligned) of the probes refitted in the shared basis.
        null: [permutations] the same with groups swapped.
        base: the base's own reading in the basis; aligned: the aligned one's.
        basis: dimensions of the shared basis.
        cosine: mean cosine of base and aligned rows, each from its mean (1: no drift, 0: unrelated).
    """

    observed: float
    null: np.ndarray
    base: float
    aligned: float
    basis: int
    cosine: float


def group_flips(groups: Sequence[Any] | np.ndarray, *, permutations: int, seed: int) -> np.ndarray:
    """Return [permutations, n_groups] booleans, groups in sorted order of their names.

    A group's flips depend on its name and the seed alone: labels read on different rows of the same
    groups are permuted together, so that max-T may run over layers and labels.
    """
    names = np.unique(np.asarray([str(group) for group in groups]))
    flips = np.empty((permutations, len(names)), dtype=bool)
    for column, name in enumerate(names):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        flips[:, column] = rng.random(permutations) < 0.5
    return flips


def row_cosine(X: np.ndarray, Y: np.ndarray) -> float:
    """Return the mean over rows of the cosine between x and y, each from its own mean."""
    x, y = X - X.mean(0), Y - Y.mean(0)
    norm = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    moving = norm > 0
    return float(((x * y).sum(1)[moving] / norm[moving]).mean()) if moving.any() else 1.0


def shared_basis(X: np.ndarray, Y: np.ndarray, size: int) -> np.ndarray:
    """Return [d, k] leading principal axes of the rows of both models together: blind to labels and to swaps."""
    both = np.concatenate([X, Y])
    both = both - both.mean(0)
    if len(both) < both.shape[1]:
        values, left = np.linalg.eigh(both @ both.T)
        keep = np.flatnonzero(values > values[-1] * 1e-12)[-size:]
        return (both.T @ left[:, keep]) / np.sqrt(values[keep])
    return np.linalg.eigh(both.T @ both)[1][:, -size:]


def swap_layer(
    X: np.ndarray,
    Y: np.ndarray,
    labels: Labels,
    folds: Folds,
    *,
    flips: np.ndarray,
    penalty: float,
    size: int = BASIS,
    wanted: tuple[float, float] | None = None,
) -> SwapNull:
    """Return a layer's drop with its swap-and-refit null.

    Each permutation says of every group which model its rows came from; both probes are refitted in the
    same folds and the drop is taken again. Group sums are made once, so a swap is a sum over groups. The
    basis is shared and blind to labels, the penalty fixed beforehand on the unswapped data.

    Args:
        X: [n, d] base rows; Y: [n, d] aligned rows, same items.
        labels: of the rows.
        folds: of the rows.
        flips: [permutations, n_groups], from `group_flips`.
        penalty: absolute ridge penalty, the same for both models.
        size: dimensions of the basis.
        wanted: readings of the base's and the aligned one's own probes outside the basis; where the basis
            misses either by more than .02 it is doubled, up to four times `size`.
    """
    centre = (X.mean(0) + Y.mean(0)) / 2
    ones = np.ones((len(X), 1))
    judge = _Judge(labels, folds)
    still = np.zeros((1, folds.n_groups), dtype=bool)
    for k in (size, 2 * size, 4 * size):
        basis = shared_basis(X, Y, k)
        zx, zy = np.hstack([(X - centre) @ basis, ones]), np.hstack([(Y - centre) @ basis, ones])
        swapper = _Swapper(zx, zy, labels.targets(), folds, penalty)
        own = [float(judge(scores)[0]) for scores in swapper.scores(still)]
        if wanted is None or basis.shape[1] < k or max(w - o for w, o in zip(wanted, own, strict=True)) <= _GAP:
            break
    null = np.empty(len(flips))
    for start in range(0, len(flips), _CHUNK):
        part = slice(start, start + _CHUNK)
        first, second = swapper.scores(flips[part])
        null[part] = judge(first) - judge(second)
    return SwapNull(own[0] - own[1], null, own[0], own[1], basis.shape[1], row_cosine(X, Y))


class _Swapper:
    """Group sums of both models, and out-of-fold scores of both sides under any flips."""

    def __init__(self, zx: np.ndarray, zy: np.ndarray, targets: np.ndarray, folds: Folds, penalty: float) -> None:
        self.z, self.folds, self.q = (zx, zy), folds, targets.shape[1]
        self.k = zx.shape[1]
        floor = 1e-12 * max(float((z[:, :-1] ** 2).sum()) for z in self.z) + 1e-30
        self.ridge = max(penalty, floor) * np.eye(self.k)
        self.ridge[-1, -1] = 0.0
        self.sums = [_group_sums(z, np.hstack([z, targets]), folds) for z in self.z]

    def scores(self, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return out-of-fold scores [p, q, n] of the first and of the second side."""
        shape = (len(flips), self.q, len(self.folds.of_row))
        out = np.empty(shape), np.empty(shape)
        of_group = self.folds.of_group()
        change = self.sums[1] - self.sums[0]
        for fold, (_, test) in enumerate(self.folds):
            train = np.flatnonzero(of_group != fold)
            moved = flips[:, train].astype(np.float64) @ change[train]
            ends = self.sums[0][train].sum(0) + moved, self.sums[1][train].sum(0) - moved
            swapped = flips[:, self.folds.groups[test]][:, None, :]
            for side in range(2):
                weights = self._solve(ends[side])  # [p, k, q]
                flat = weights.transpose(0, 2, 1).reshape(-1, self.k)
                own = (flat @ self.z[side][test].T).reshape(len(flips), self.q, -1)
                other = (flat @ self.z[1 - side][test].T).reshape(len(flips), self.q, -1)
                out[side][:, :, test] = np.where(swapped, other, own)
        return out

    def _solve(self, sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(len(sums), self.k, self.k + self.q)
        return np.linalg.solve(table[:, :, : self.k] + self.ridge, table[:, :, self.k :])


class _Judge:
    """The headline reading of many score vectors [p, q, n] at once."""

    def __init__(self, labels: Labels, folds: Folds) -> None:
        self.labels = labels
        self.curves = []
        if labels.task != "regression":
            wanted = [1] if labels.task == "binary" else range(len(labels.classes))
            self.curves = [FoldAuc(labels.codes == c, folds.of_row, folds.groups) for c in wanted]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        if self.labels.task == "regression":
            y = self.labels.values
            return 1 - ((y - scores[:, 0]) ** 2).sum(-1) / ((y - y.mean()) ** 2).sum()
        each = np.stack([curve.values(scores[:, c]) for c, curve in enumerate(self.curves)])
        return np.nanmean(each, axis=0)


def _group_sums(left: np.ndarray, right: np.ndarray, folds: Folds) -> np.ndarray:
    """Return [n_groups, k * m] sums over each group's rows of left [n, k] outer right [n, m]."""
    order = np.argsort(folds.groups, kind="stable")
    edges = np.searchsorted(folds.groups[order], np.arange(folds.n_groups + 1))
    out = np.empty((folds.n_groups, left.shape[1] * right.shape[1]))
    for group in range(folds.n_groups):
        rows = order[edges[group] : edges[group + 1]]
        out[group] = (left[rows].T @ right[rows]).ravel()
    return out


def fold_differences(
    X: np.ndarray,
    Y: np.ndarray,
    labels: Labels,
    folds: Folds,
    *,
    penalty: tuple[float, float],
    repeats: int,
    seed: int,
    size: int = BASIS,
) -> np.ndarray:
    """Return [repeats * folds] drops of probes refitted in repeated folds, each model in its own basis.

    For pairs that have drifted apart, whose rows cannot be swapped. To be tested by the corrected t.

    Args:
        X: [n, d] base rows; Y: [n, d] aligned rows.
        labels: of the rows.
        folds: gives groups and their number of folds.
        penalty: absolute ridge penalty of each model.
        repeats: random group folds to draw.
        seed: of the folds.
        size: dimensions of each model's basis.
    """
    out = []
    spaces = []
    for Z in (X, Y):
        basis = shared_basis(Z, Z, size)
        spaces.append(np.hstack([(Z - Z.mean(0)) @ basis, np.ones((len(Z), 1))]))
    for repeat in range(repeats):
        again = group_folds(folds.groups, labels.strata(), n_folds=folds.n_folds, seed=seed + 1 + repeat)
        still = np.zeros((1, folds.n_groups), dtype=bool)
        scores = [
            _Swapper(z, z, labels.targets(), again, p).scores(still)[0][0] for z, p in zip(spaces, penalty, strict=True)
        ]
        for fold in range(again.n_folds):
            rows = np.flatnonzero(again.of_row == fold)
            values = [_one_fold(s[:, rows], labels, rows) for s in scores]
            out.append(values[0] - values[1])
    drops = np.array(out)
    return drops[np.isfinite(drops)]


def _one_fold(scores: np.ndarray, labels: Labels, rows: np.ndarray) -> float:
    if labels.task == "regression":
        y = labels.values[rows]
        return float(1 - ((y - scores[0]) ** 2).sum() / ((y - labels.values.mean()) ** 2).sum())
    zeros = np.zeros(len(rows), dtype=np.int64)
    wanted = [1] if labels.task == "binary" else np.unique(labels.codes[rows])
    values = [
        float(FoldAuc(labels.codes[rows] == c, zeros, zeros).values(scores[0 if labels.task == "binary" else c]))
        for c in wanted
    ]
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")
