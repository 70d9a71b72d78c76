"""Sums of several suites' means, and ratios of such sums, resampled by group within each suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxlens.core.errors import UsageError
from taxlens.core.stats.intervals import Interval, group_index, group_weights
from taxlens.core.stats.tails import ends, welch_tail

Columns = Sequence[np.ndarray]
"""One column of items a suite."""


def joint_mean(columns: Columns, groups: Columns, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """The sum of the suites' means, with an interval by a bootstrap over groups within each suite.

    Every suite keeps its own number of groups in every draw, so the interval does not widen because one draw
    holds more of one suite and less of another. Its ends are read as everywhere (`tails`), by Welch's rule over
    suites; of one suite it is `mean_interval`. NaN where a suite has fewer than two groups.
    """
    value = float(sum(column.mean() for column in columns))
    drawn = _drawn([columns], groups, draws, seed)[0]
    low, high = _ends(drawn, _deviations(columns, groups), level)
    return _interval(value, low, high, groups, draws, level)


def joint_ratio(
    numerator: Columns, denominator: Columns, groups: Columns, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """One sum of means over another, both resampled together; infinite ends where the denominator's sign is open.

    NaN ends where a suite has fewer than two groups.

    Raises:
        UsageError: the denominator is 0: there is nothing to take a share of.
    """
    top, bottom = (float(sum(column.mean() for column in side)) for side in (numerator, denominator))
    if bottom == 0:
        raise UsageError("the denominator of a ratio is 0 over the items: there is nothing to take a share of.")
    above, below = _drawn([numerator, denominator], groups, draws, seed)
    kept = below * np.sign(bottom) > 0
    if 1 - kept.mean() > welch_tail(_deviations(denominator, groups), level):
        low, high = (np.nan, np.nan) if _few(groups) else (-np.inf, np.inf)
        return _interval(top / bottom, low, high, groups, draws, level)
    apart = [above_ - top / bottom * below_ for above_, below_ in zip(numerator, denominator, strict=True)]
    low, high = _ends(above[kept] / below[kept], _deviations(apart, groups), level)
    return _interval(top / bottom, low, high, groups, draws, level)


def ratio_influence(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """A ratio of sums item by item, R + (n - R d) / mean(d): the mean of it is R, and its spread that of R to first order.

    Args:
        top: [items] numerators.
        bottom: [items] denominators; their sum is not 0.

    Returns:
        [items] float64.

    Example:
        >>> float(ratio_influence(np.array([1.0, 0.0]), np.array([1.0, 3.0])).mean())
        0.25
    """
    ratio = top.sum() / bottom.sum()
    return ratio + (top - ratio * bottom) / bottom.mean()


def _drawn(sides: Sequence[Columns], groups: Columns, draws: int, seed: int) -> list[np.ndarray]:
    """The drawn sums of means of each side, [draws]; all sides of a suite share its draws."""
    found = [np.zeros(draws) for _ in sides]
    for place, group in enumerate(groups):
        weights = group_weights(group, draws=draws, seed=seed + 7919 * place)
        weights = weights / weights.sum(axis=1, keepdims=True)
        for total, side in zip(found, sides, strict=True):
            total += weights @ side[place]
    return found


def _deviations(columns: Columns, groups: Columns) -> list[np.ndarray]:
    """By suite, each group's sum of deviations from the suite's mean, over the suite's items."""
    found = []
    for column, group in zip(columns, groups, strict=True):
        index, n_groups = group_index(group)
        found.append(np.bincount(index, column - column.mean(), n_groups) / len(column))
    return found


def _few(groups: Columns) -> bool:
    """Whether a suite has one group, so that nothing is known of how it varies."""
    return min(group_index(group)[1] for group in groups) < 2


def _ends(drawn: np.ndarray, deviations: Sequence[np.ndarray], level: float) -> tuple[float, float]:
    if min(len(one) for one in deviations) < 2:
        return float("nan"), float("nan")
    low, high = ends(drawn[:, None], welch_tail(deviations, level))
    return float(low[0]), float(high[0])


def _interval(value: float, low: float, high: float, groups: Columns, draws: int, level: float) -> Interval:
    n_groups = sum(group_index(group)[1] for group in groups)
    words = f"percentile group bootstrap within suites, {draws} draws"
    return Interval(value, low, high, level, sum(len(group) for group in groups), n_groups, words)
