"""One pass over a pair's rows at one layer, and everything that similarity, drift and spectra need of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.rows.folds import balanced_folds
from taxlens.probes.rows.massive import HeldRows, ReservoirRows
from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.rows.regroup import unrelated_partner
from taxlens.probes.similarity.drift import DriftSums

BLOCK = 2048
NULL_FOLDS = 2
TRIM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What one pass over the paired rows of a layer leaves: sums by fold, and no rows but a few.

    Folds hold whole groups, so leaving one out leaves out whole groups. `permuted` are the moments of the
    same base rows paired with aligned rows of other groups: the null of every measure of agreement.
    `trimmed` are the folds without the `n_trimmed` rows of largest norm.
    """

    n: int
    n_groups: int
    folds: tuple[PairMoments, ...]
    trimmed: tuple[PairMoments, ...]
    permuted: tuple[PairMoments, ...]
    total: PairMoments
    drift: DriftSums
    drift_trimmed: DriftSums
    n_trimmed: int
    rows: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def widths(self) -> tuple[int, int]:
        """Width of base and aligned rows."""
        return self.total.xx.shape[-1], self.total.yy.shape[-1]

    def __repr__(self) -> str:
        return f"Gathered(n={self.n} in {self.n_groups} groups, d={self.widths}, {len(self.folds)} folds)"


def gather(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]] | tuple[np.ndarray, np.ndarray],
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    positions: Sequence[int] | np.ndarray | None = None,
    head: int | None = None,
    folds: int = 10,
    trim: float = TRIM,
    keep: int = 0,
    seed: int = 0,
) -> Gathered:
    """Read a layer's paired rows once and return their moments by fold, trimmed and permuted.

    Every in-memory array is bounded: `4 * folds + 4` matrices of d x d in float64, a block of 2,048 rows,
    the 256 rows of largest norm, and the `keep` rows asked for. Blocks are cut again to 2,048 rows, so
    the result does not depend on how the caller cut them; the order of rows changes only the null.

    Args:
        blocks: pairs (X_base [k, d], X_aligned [k, d]) with the same rows, or one pair of whole arrays.
            Rows [k, heads, d_head] are read as [k, heads * d_head], or one head of them (`head`).
        groups: [n] group of each row, in stream order; each row its own group if left out.
        positions: [n] token position of each row, for drift by position.
        head: index of the head to read from [k, heads, d_head] rows.
        folds: folds of whole groups, the unit of the jackknife and of held-out fits (fewer with few groups).
        trim: share of rows of largest norm, in either model, that the trimmed sums leave out
            (at most 256 rows a model).
        keep: rows to hold for measures that need rows (`mutual_knn`, `rsa`): a seeded random sample.
        seed: of the folds, the permutation and the sample.

    Raises:
        UsageError: fewer than 3 rows, different rows in the two models, groups or positions of another
            length, constant activations, NaN or infinite values, a head out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(60, 4))
        >>> gather((X, 2 * X), folds=5)
        Gathered(n=60 in 60 groups, d=(4, 4), 5 folds)
    """
    group_of = None if groups is None else np.unique(_names(groups), return_inverse=True)[1]
    fold_of = None if group_of is None else balanced_folds(group_of, folds, seed)
    place = None if positions is None else np.asarray(positions)
    n_folds = folds if fold_of is None else int(fold_of.max(initial=0)) + 1
    one_pass = _Pass(n_folds, keep, seed)
    for X, Y in _recut(_open(blocks), head):
        span = slice(one_pass.n, one_pass.n + len(X))
        index = np.arange(span.start, span.stop)
        if group_of is not None and span.stop > len(group_of):
            raise _length("groups", len(group_of), f"at least {span.stop}")
        fold = index % folds if fold_of is None else fold_of[span]
        one_pass.update(X, Y, fold, index if group_of is None else group_of[span], _slice(place, span))
    for name, given in (("groups", group_of), ("positions", place)):
        if given is not None and len(given) != one_pass.n:
            raise _length(name, len(given), one_pass.n)
    return one_pass.finish(trim, one_pass.n if group_of is None else int(group_of.max(initial=-1)) + 1)


class _Pass:
    """The running sums of one pass."""

    def __init__(self, folds: int, keep: int, seed: int) -> None:
        self.n = 0
        self.rng = np.random.default_rng([seed, 1])
        self.n_folds = folds
        self.main: list[PairMoments] = []
        self.null: list[PairMoments] = []
        self.drift, self.drift_trimmed = DriftSums(folds), DriftSums(folds)
        self.held = HeldRows()
        self.kept = ReservoirRows(keep, seed) if keep else None

    def update(
        self, X: np.ndarray, Y: np.ndarray, fold: np.ndarray, group: np.ndarray, place: np.ndarray | None
    ) -> None:
        X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
        _refuse_not_finite(X, Y, self.n)
        if not self.main:
            shift = (X.mean(0), Y.mean(0))
            self.main = [PairMoments(shift) for _ in range(self.n_folds)]
            self.null = [PairMoments(shift) for _ in range(NULL_FOLDS)]
        partner = unrelated_partner(group, self.rng)
        half = fold % NULL_FOLDS
        for part in range(NULL_FOLDS):
            self.null[part].update(X[half == part], Y[partner[half == part]])
        self.drift.update(X, Y, fold, Y[partner], place)
        if self.kept is not None:
            self.kept.update(X, Y, group)
        self._add_plain(*self.held.exchange(X, Y, fold))
        self.n += len(X)

    def _add_plain(self, X: np.ndarray, Y: np.ndarray, fold: np.ndarray) -> None:
        self.drift_trimmed.update(X, Y, fold, Y)
        self._add(X, Y, fold, to=self.main)

    @staticmethod
    def _add(X: np.ndarray, Y: np.ndarray, fold: np.ndarray, *, to: list[PairMoments]) -> None:
        for k, moments in enumerate(to):
            here = fold == k
            if here.any():
                moments.update(X[here], Y[here])

    def finish(self, trim: float, n_groups: int) -> Gathered:
        if self.n < 3:
            raise UsageError(explain("too few rows to compare.", [("rows", self.n), ("expected", "at least 3")]))
        whole = [_copy(moments) for moments in self.main]
        self._add(self.held.X, self.held.Y, self.held.fold, to=whole)
        low, n_trimmed = self.held.below(trim, self.n)
        self._add_plain(self.held.X[low], self.held.Y[low], self.held.fold[low])
        whole, trimmed, permuted = (tuple(m for m in part if m.n) for part in (whole, self.main, self.null))
        total = merge_all(whole)
        _refuse_constant(total)
        rows = None if self.kept is None else self.kept.rows()
        drift = (self.drift, self.drift_trimmed)
        return Gathered(self.n, n_groups, whole, trimmed, permuted, total, *drift, n_trimmed, rows)


def merge_all(parts: Sequence[PairMoments]) -> PairMoments:
    """Return the moments of the rows of all parts, which may be given in any order."""
    total = _copy(parts[0])
    for part in parts[1:]:
        total = total.merge(part)
    return total


def _copy(moments: PairMoments) -> PairMoments:
    new = PairMoments((moments.shift_x, moments.shift_y))
    for name in PairMoments.__slots__:
        setattr(new, name, getattr(moments, name))
    return new


def _open(blocks: object) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    if isinstance(blocks, tuple) and len(blocks) == 2 and all(hasattr(part, "shape") for part in blocks):
        return [blocks]  # type: ignore[list-item]
    return blocks  # type: ignore[return-value]


def _recut(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], head: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a stream of blocks again into blocks of BLOCK rows."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    rows, widths = 0, None
    for X, Y in blocks:
        X, Y = _flat(X, head), _flat(Y, head)
        if len(X) != len(Y):
            text = [("base", f"{len(X)} rows"), ("aligned", f"{len(Y)} rows")]
            fix = "capture both models on the same items, or keep the rows they share."
            raise UsageError(explain("base and aligned hold different items.", text, fix))
        if widths not in (None, (X.shape[1], Y.shape[1])):
            text = [("got", f"base {X.shape[1]}, aligned {Y.shape[1]}"), ("before", widths)]
            raise UsageError(explain("the width of the rows changed between blocks.", text))
        widths = (X.shape[1], Y.shape[1])
        for start in range(0, len(X), BLOCK):
            waiting.append((X[start : start + BLOCK], Y[start : start + BLOCK]))
            rows += len(waiting[-1][0])
            while rows >= BLOCK:
                X_all, Y_all = (np.concatenate(part) for part in zip(*waiting))
                yield X_all[:BLOCK], Y_all[:BLOCK]
                waiting, rows = [(X_all[BLOCK:], Y_all[BLOCK:])], rows - BLOCK
    if rows:
        X_all, Y_all = (np.concatenate(part) for part in zip(*waiting))
        yield X_all, Y_all


def _flat(X: np.ndarray, head: int | None) -> np.ndarray:
    X = np.asarray(X)
    if X.ndim == 2 and head is None:
        return X
    if X.ndim != 3:
        expected = "[rows, d]" if head is None else "[rows, heads, d_head], because a head was asked for"
        raise UsageError(explain("a block has the wrong shape.", [("got", X.shape), ("expected", expected)]))
    if head is None:
        return X.reshape(len(X), -1)
    if not 0 <= head < X.shape[1]:
        raise UsageError(explain("no such head.", [("head", head), ("heads", f"0 to {X.shape[1] - 1}")]))
    return X[:, head]


def _names(groups: Sequence[object] | np.ndarray) -> np.ndarray:
    names = np.asarray(groups)
    return names.astype(str) if names.dtype == object else names


def _slice(values: np.ndarray | None, span: slice) -> np.ndarray | None:
    if values is not None and span.stop > len(values):
        raise _length("positions", len(values), f"at least {span.stop}")
    return None if values is None else values[span]


def _length(name: str, got: int, expected: object) -> UsageError:
    return UsageError(explain(f"{name} and rows differ in number.", [(name, got), ("rows", expected)]))


def _refuse_not_finite(X: np.ndarray, Y: np.ndarray, before: int) -> None:
    for model, rows in (("base", X), ("aligned", Y)):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            text = [
                ("model", model),
                ("first bad row", before + int(bad[0])),
                ("bad rows in block", len(bad)),
            ]
            fix = "drop these rows, or capture again in float32 if float16 overflowed."
            raise UsageError(explain("activations hold NaN or infinite values.", text, fix))


def _refuse_constant(total: PairMoments) -> None:
    for model, mean, cov in (
        ("base", total.mean_x(), total.cov_xx()),
        ("aligned", total.mean_y(), total.cov_yy()),
    ):
        if not np.trace(cov) > 1e-24 * (mean @ mean):
            rows = [("model", model), ("rows", total.n), ("variance", float(np.trace(cov)))]
            fix = "read another site, layer or token position: here every row is the same."
            raise UsageError(explain("activations are constant: nothing to compare.", rows, fix))
