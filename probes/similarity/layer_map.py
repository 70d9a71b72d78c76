"""Every layer of base against every layer of aligned, tile by tile within a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.probes.rows.folds import balanced_folds
from taxlens.probes.rows.jackknife import jackknife_interval
from taxlens.probes.similarity.similarity import Similarity, SimilarityRow, expand, similarity

Reader = Callable[[int], np.ndarray]
NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One layer of one model: centred rows ordered by fold, and what the jackknife needs of them."""

    X: np.ndarray  # [n, d]
    norms: np.ndarray  # [n] squared
    sums: np.ndarray  # [K, d] by fold
    away: np.ndarray  # [n, K] product of each row with the sum of each fold that it is not in
    q: np.ndarray  # [K] sums of squared norms by fold
    itself: np.ndarray  # [1 + K] unbiased HSIC with itself: all rows, each fold left out


def layer_map(
    read_base: Reader,
    read_aligned: Reader,
    layers: Sequence[int],
    *,
    layers_aligned: Sequence[int] | None = None,
    groups: Sequence[object] | np.ndarray | None = None,
    measure: str = "cka",
    memory: float = 2e9,
    folds: int = 10,
    level: float = 0.95,
    site: str = "",
    seed: int = 0,
    progress: Progress = SILENT,
) -> Similarity:
    """Return a measure for every pair of a base layer and an aligned layer.

    Debiased CKA takes one product of [d, n] and [n, d] a pair, no Gram matrix, with the jackknife from the
    same products. Base layers are held in tiles as large as `memory` allows; for each tile the aligned
    layers are read once. The same reader twice gives the map of one model against itself. For CKA the null
    is 0, its mean over permutations of rows; any other measure goes through `similarity` pair by pair,
    which is slower by far.

    Args:
        read_base: layer -> rows [n, d] of base (any float dtype).
        read_aligned: layer -> rows [n, d] of aligned, in the same order.
        layers: base layers, the rows of the map.
        layers_aligned: aligned layers, the columns; the same as `layers` if left out.
        groups: [n] group of each row; each its own group if left out.
        measure: one measure's name.
        memory: bytes that rows and products may take.
        folds: folds of whole groups for the jackknife.
        level: nominal coverage.
        site: for the table.
        seed: of the folds.
        progress: told of every pair.

    Raises:
        UsageError: readers give different numbers of rows, constant or non-finite rows, fewer than 4 rows.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(60, 2, 4))
        >>> table = layer_map(lambda l: X[:, l], lambda l: X[:, l], [0, 1])
        >>> round(table.value("cka", 1).value, 12)
        1.0
    """
    columns = list(layers if layers_aligned is None else layers_aligned)
    named = {"level": level, "site": site, "seed": seed}
    with progress.task(f"{measure} map", total=len(layers) * len(columns), unit="pairs") as task:
        if expand([measure])[0] == "cka":
            made = _cka_rows(read_base, read_aligned, layers, columns, groups, memory, folds, level, seed)
        else:
            made = _pair_rows(read_base, read_aligned, layers, columns, groups, measure, named)
        rows = {}
        for row in made:
            rows[row.layer_base, row.layer_aligned] = row
            task.advance()
    return Similarity(tuple(rows[a, b] for a in layers for b in columns), site)


def _pair_rows(
    read_base: Reader,
    read_aligned: Reader,
    layers: Sequence[int],
    columns: Sequence[int],
    groups: Sequence[object] | np.ndarray | None,
    measure: str,
    named: dict[str, Any],
) -> Iterator[SimilarityRow]:
    for a in layers:
        X = read_base(a)
        for b in columns:
            pair = (X, read_aligned(b))
            made = similarity(pair, groups, measures=[measure], layer=a, layer_aligned=b, **named)
            yield made.rows[0]


def _cka_rows(
    read_base: Reader,
    read_aligned: Reader,
    layers: Sequence[int],
    columns: Sequence[int],
    groups: Sequence[object] | np.ndarray | None,
    memory: float,
    folds: int,
    level: float,
    seed: int,
) -> Iterator[SimilarityRow]:
    first = np.asarray(read_base(layers[0]))
    order, edges, n_groups = _order(len(first), groups, folds, seed)
    counts = {"n_items": len(order), "n_groups": n_groups}
    for tile in _tiles(layers, first.shape, folds, memory):
        held = {a: _side(read_base(a), order, edges, f"base layer {a}") for a in tile}
        for b in columns:
            right = _side(read_aligned(b), order, edges, f"aligned layer {b}")
            for a, left in held.items():
                values = _cka(left, right, edges)
                ends = jackknife_interval(values[0], values[1:], **counts, level=level, low=-1, high=1)
                numbers = (ends.value, ends.low, ends.high, 0.0, NAN, NAN)
                yield SimilarityRow(a, b, "cka", *numbers, **counts)


def _tiles(layers: Sequence[int], shape: tuple[int, ...], folds: int, memory: float) -> Iterator[Sequence[int]]:
    """Base layers in tiles that leave room for one aligned layer, its copies and the products by fold."""
    width = int(np.prod(shape[1:]))
    one_layer = 8 * shape[0] * (width + folds)
    room = memory - 3 * one_layer - 8 * (folds + 3) * width**2
    tile = max(1, int(room // one_layer))
    for start in range(0, len(layers), tile):
        yield layers[start : start + tile]


def _order(
    n: int, groups: Sequence[object] | np.ndarray | None, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows ordered by fold [n], the folds' edges [K + 1], and the number of groups."""
    if groups is None:
        group_of = np.arange(n)
    else:
        names = np.asarray(groups)
        group_of = np.unique(names.astype(str) if names.dtype == object else names, return_inverse=True)[1]
    if n < 4 or len(group_of) != n:
        rows = [("rows", n), ("groups", len(group_of)), ("expected", "one group a row, at least 4 rows")]
        raise UsageError(explain("rows and groups cannot make a layer map.", rows))
    fold_of = balanced_folds(group_of, folds, seed)
    edges = np.concatenate([[0], np.cumsum(np.bincount(fold_of))])
    return np.argsort(fold_of, kind="stable"), edges, int(group_of.max()) + 1


def _side(rows: np.ndarray, order: np.ndarray, edges: np.ndarray, name: str) -> _Side:
    rows = np.asarray(rows)
    if len(rows) != len(order):
        text = [("layer", name), ("rows", len(rows)), ("expected", len(order))]
        raise UsageError(explain("layers hold different items.", text, "read the same rows of each."))
    X = rows.reshape(len(rows), -1)[order].astype(np.float64)
    mean = X.mean(0)
    X -= mean
    norms = np.einsum("nd,nd->n", X, X)
    if not np.isfinite(norms.sum()) or not norms.sum() > 1e-24 * len(X) * (mean @ mean):
        text = [("layer", name), ("rows that are not finite", int((~np.isfinite(norms)).sum()))]
        raise UsageError(explain("a layer is constant or not finite: nothing to compare.", text))
    sums = np.add.reduceat(X, edges[:-1])
    away = X @ sums.T
    for k, (start, stop) in enumerate(pairwise(edges)):
        away[start:stop, k] = 0
    side = _Side(X, norms, sums, away, np.add.reduceat(norms, edges[:-1]), np.ones(0))
    itself = _hsic(side, side, edges)
    if not (itself > 0).all():
        text = [("layer", name), ("rows", len(X)), ("unbiased HSIC with itself", float(itself.min()))]
        raise UsageError(explain("debiased CKA is undefined for these rows.", text, "more rows."))
    return _Side(X, norms, sums, away, side.q, itself)


def _cka(left: _Side, right: _Side, edges: np.ndarray) -> np.ndarray:
    """Debiased CKA [1 + K] of all rows and with each fold left out."""
    return _hsic(left, right, edges) / np.sqrt(left.itself * right.itself)


def _hsic(left: _Side, right: _Side, edges: np.ndarray) -> np.ndarray:
    """Unbiased HSIC [1 + K]: over all rows, then with each fold left out (rows centred over all)."""
    spans = [slice(a, b) for a, b in pairwise(edges)]
    products = [left.X[span].T @ right.X[span] for span in spans]
    total = np.sum(products, axis=0)
    both = left.norms * right.norms
    q_xy = both.sum()
    square = np.einsum("ij,ij->", total, total)
    q_x, q_y, n = left.q.sum(), right.q.sum(), len(both)
    values = [_unbiased(n, square - q_xy, q_x * q_y, q_xy)]
    toward_y, toward_x = left.away.T @ right.norms, right.away.T @ left.norms
    for k, (span, product) in enumerate(zip(spans, products, strict=True)):
        rest = total - product
        a, b = left.sums[k], right.sums[k]
        q_rest = q_xy - both[span].sum()
        mixed = a @ rest @ b + toward_y[k] + toward_x[k] + q_rest
        diagonal = (a @ a - (q_x - left.q[k])) * (b @ b - (q_y - right.q[k]))
        n_rest = n - (span.stop - span.start)
        values.append(_unbiased(n_rest, np.einsum("ij,ij->", rest, rest) - q_rest, diagonal, mixed))
    return np.array(values)


def _unbiased(n: int, trace: float, ones: float, mixed: float) -> float:
    return float((trace + ones / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed) / (n * (n - 3)))
