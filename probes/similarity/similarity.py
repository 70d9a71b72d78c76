"""Similarity of a pair by layer: every named measure with its interval, its null, and without massive rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval, mean_interval
from taxlens.probes.rows.heldout import HeldOut
from taxlens.probes.rows.jackknife import jackknife_interval
from taxlens.probes.rows.massive import below_top
from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import TRIM, Gathered, gather, merge_all
from taxlens.probes.similarity.measures import DRIFT, MEASURES, Measure, ceiling_of, chance_of

DEFAULT = ("cka", "procrustes", "linear_r2", "drift")
KEEP = 4096
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class SimilarityRow:
    """One measure of one pair of layers.

    `null` is the measure on unrelated rows (aligned rows of other groups), `trimmed` the measure without
    the top .1 % of norms, `ceiling` what sampling alone allows (subspace only; NaN otherwise).
    """

    layer_base: int
    layer_aligned: int
    measure: str
    value: float
    low: float
    high: float
    null: float
    trimmed: float
    ceiling: float
    n_items: int
    n_groups: int


@dataclass(frozen=True, slots=True)
class Similarity(Result):
    """Similarity of base and aligned, layer by layer; add two to join their rows."""

    rows: tuple[SimilarityRow, ...]
    site: str = ""

    figure: ClassVar[str] = "similarity"

    def __add__(self, other: Similarity) -> Similarity:
        return Similarity(self.rows + other.rows, self.site if self.site == other.site else "")

    def to_frame(self) -> pd.DataFrame:
        """Return the rows with the columns of similarity.csv, and trimmed, ceiling, n_groups."""
        columns = list(SimilarityRow.__dataclass_fields__)
        return pd.DataFrame([asdict(row) for row in self.rows], columns=columns)

    def value(self, measure: str, layer: int, *, layer_aligned: int | None = None) -> SimilarityRow:
        """Return the row of a measure at a layer (matched layers unless `layer_aligned` is given).

        Raises:
            UsageError: if it was not computed.
        """
        other = layer if layer_aligned is None else layer_aligned
        for row in self.rows:
            if (row.measure, row.layer_base, row.layer_aligned) == (measure, layer, other):
                return row
        known = sorted({row.measure for row in self.rows})
        raise UsageError(explain(f"no {measure} of layers {layer} and {other}.", [("computed", known)]))

    def __repr__(self) -> str:
        parts = []
        for name in dict.fromkeys(row.measure for row in self.rows):
            row = min((r for r in self.rows if r.measure == name), key=lambda r: r.value)
            where = f"at layer {row.layer_base}" + (
                f"/{row.layer_aligned}" if row.layer_aligned != row.layer_base else ""
            )
            parts.append(f"{name} >= {row.value:.4g} [{row.low:.4g}, {row.high:.4g}] {where}")
        n = max((row.n_items for row in self.rows), default=0)
        return f"Similarity({'; '.join(parts)}; n={n})"


def similarity(
    source: Gathered | Iterable[tuple[np.ndarray, np.ndarray]] | tuple[np.ndarray, np.ndarray],
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    measures: Sequence[str] = DEFAULT,
    layer: int = 0,
    layer_aligned: int | None = None,
    site: str = "",
    level: float = 0.95,
    seed: int = 0,
) -> Similarity:
    """Return the named measures of one layer of a pair, with intervals, nulls and trimmed values.

    One pass over the rows. `drift` gives all of its parts: relative norm (`drift`), mean cosine, effective
    rank of the difference, share in its leading 1 and 10 directions, share of a constant shift;
    `linear_r2` gives both ways. Intervals: jackknife over ten folds of whole groups (for held-out measures
    over the scored folds, with the fits kept), group bootstrap for `mutual_knn`; none for `rsa`, whose
    pairs of rows are not independent. Similarity does not locate a lost capability: see `spectra`.

    Args:
        source: what `gather` returned, or what it takes: blocks of (X_base [k, d], X_aligned [k, d]).
        groups: [n] group of each row, in stream order (when `source` is blocks).
        measures: names: cka, procrustes, linear_r2, drift, subspace, mutual_knn, svcca, and by name
            cka_biased, procrustes_cosine, angular, cca, pwcca, gulp, rsa.
        layer: block index of the base rows, for the table.
        layer_aligned: block index of the aligned rows, if another.
        site: for the table.
        level: nominal coverage of the intervals.
        seed: of folds, permutation and bootstrap.

    Raises:
        UsageError: unknown measure, too few rows for a measure, different widths where they must be equal,
            and all that `gather` refuses.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(400, 8))
        >>> similarity((X, 2 * X), measures=["cka"]).rows[0].value
        1.0
    """
    chosen = expand(measures)
    if not isinstance(source, Gathered):
        keep = KEEP if any(MEASURES[name].kind == "rows" for name in chosen) else 0
        source = gather(source, groups, keep=keep, seed=seed)
    for name in chosen:
        _refuse_widths(MEASURES[name], source)
    by_moments = [MEASURES[name] for name in chosen if MEASURES[name].kind == "moments"]
    evaluated = _from_moments(by_moments, source, level) if by_moments else {}
    for name in chosen:
        if name not in evaluated:
            measure = MEASURES[name]
            evaluated[name] = _EVALUATE[measure.kind](measure, source, level, seed)
    other = layer if layer_aligned is None else layer_aligned
    rows = []
    for name in chosen:
        measure, (found, null, trimmed) = MEASURES[name], evaluated[name]
        null = null if measure.null == "permuted" else chance_of(measure, source)
        numbers = (found.value, found.low, found.high, null, trimmed, ceiling_of(measure, source))
        rows.append(SimilarityRow(layer, other, name, *numbers, found.n_items, found.n_groups))
    return Similarity(tuple(rows), site)


def expand(measures: Sequence[str]) -> tuple[str, ...]:
    """Return the measures to compute: drift in all its parts, linear_r2 both ways, each once.

    Raises:
        UsageError: unknown name, or none.
    """
    if not measures:
        raise UsageError(explain("no measure asked for.", [("known", ", ".join(MEASURES))]))
    names: list[str] = []
    for name in measures:
        one_of(name, list(MEASURES), what="measure")
        names += {"drift": DRIFT, "linear_r2": ("linear_r2", "linear_r2_back")}.get(name, (name,))
    return tuple(dict.fromkeys(names))


def _refuse_widths(measure: Measure, source: Gathered) -> None:
    base, aligned = source.widths
    if measure.same_width and base != aligned:
        rows = [("base", f"d = {base}"), ("aligned", f"d = {aligned}")]
        fix = "cka, procrustes, linear_r2, svcca or mutual_knn, which compare spaces of any width."
        raise UsageError(explain(f"{measure.name} needs equal widths.", rows, fix))


_Evaluated = tuple[Interval, float, float]


def _from_moments(measures: list[Measure], source: Gathered, level: float) -> dict[str, _Evaluated]:
    """All measures of the same moments together, so that what they share is computed once."""
    whole = _each(measures, source.total)
    folds = source.folds if len(source.folds) > 1 else ()
    left_out = [_each(measures, source.total.without(fold)) for fold in folds]
    permuted = [m for m in measures if m.null == "permuted"]
    null = _each(permuted, merge_all(source.permuted)) if permuted else {}
    trimmed = _each(measures, merge_all(source.trimmed)) if source.n_trimmed else whole
    evaluated = {}
    for measure in measures:
        name = measure.name
        without = np.array([values[name] for values in left_out])
        interval = _interval(measure, source, whole[name], without, level)
        evaluated[name] = (interval, null.get(name, NAN), trimmed[name])
    return evaluated


def _each(measures: list[Measure], moments: PairMoments) -> dict[str, float]:
    return {measure.name: measure.function(moments) for measure in measures}


def _from_heldout(measure: Measure, source: Gathered, level: float, seed: int) -> _Evaluated:
    f = measure.function
    if len(source.folds) < 2:
        rows = [("groups", source.n_groups), ("expected", "at least 2, to hold one out")]
        raise UsageError(explain(f"{measure.name} is scored on unseen groups.", rows, "more groups."))
    scored = f(source.folds, source.total)
    interval = _interval(measure, source, scored.value, scored.left_out, level)
    null = _heldout_value(f, source.permuted)
    trimmed = _heldout_value(f, source.trimmed) if source.n_trimmed else interval.value
    return interval, null, trimmed


def _heldout_value(f: Callable[..., HeldOut], folds: Sequence[PairMoments]) -> float:
    return f(folds, merge_all(folds)).value if len(folds) > 1 else NAN


def _from_drift(measure: Measure, source: Gathered, level: float, seed: int) -> _Evaluated:
    f, parts = measure.function, source.drift.parts()
    sums = parts.sum(0)
    left_out = np.array([f(sums - part) for part in parts]) if len(parts) > 1 else np.empty(0)
    null = f(sums[[0, 4, 5, 3, 4, 5]])
    trimmed = f(source.drift_trimmed.parts().sum(0))
    return _interval(measure, source, f(sums), left_out, level), null, trimmed


def _from_rows(measure: Measure, source: Gathered, level: float, seed: int) -> _Evaluated:
    if source.rows is None:
        raise UsageError(explain(f"{measure.name} needs rows, and none were kept.", fix=f"gather(..., keep={KEEP})"))
    X, Y, group = source.rows
    plain = below_top(X, Y, TRIM)
    value = measure.function(X, Y)
    order = np.random.default_rng([seed, 3]).permutation(len(X))
    null = float(np.mean(measure.function(X, Y[order])))
    trimmed = float(np.mean(measure.function(X[plain], Y[plain])))
    if np.ndim(value):
        return mean_interval(value, group, seed=seed, level=level), null, trimmed
    words = "none: pairs of rows are not independent"
    interval = Interval(float(value), NAN, NAN, level, len(X), len(np.unique(group)), words)
    return interval, null, trimmed


def _interval(measure: Measure, source: Gathered, value: float, left_out: np.ndarray, level: float) -> Interval:
    counts = {"n_items": source.n, "n_groups": source.n_groups}
    return jackknife_interval(value, left_out, **counts, level=level, low=measure.low, high=measure.high)


_EVALUATE = {
    "heldout": _from_heldout,
    "drift": _from_drift,
    "rows": _from_rows,
}
