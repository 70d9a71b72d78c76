"""Sums of several suites' means, and ratios of such sums, resampled by group within each suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, stdtrit

from taxlens.core.errors import UsageError
from taxlens.core.stats.intervals import Interval, group_weights

Columns = Sequence[np.ndarray]
"""One column of items a suite."""


def joint_mean(columns: Columns, groups: Columns, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """The sum of the suites' means, with an interval by a bootstrap over groups within each suite.

    Every suite keeps its own number of groups in every draw, so the interval does not widen because one draw
    holds more of one suite and less of another.
    """
    value = float(sum(column.mean() for column in columns))
    low, high = _ends(_drawn([columns], groups, draws, seed)[0], groups, level)
    return _interval(value, low, high, groups, draws, level)


def joint_ratio(
    numerator: Columns, denominator: Columns, groups: Columns, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """One sum of means over another, both resampled together; infinite ends where the denominator's sign is open.

    Raises:
        UsageError: the denominator is 0: there is nothing to take a share of.
    """
    top, bottom = (float(sum(column.mean() for column in side)) for side in (numerator, denominator))
    if bottom == 0:
        raise UsageError("the denominator of a ratio is 0 over the items: there is nothing to take a share of.")
    above, below = _drawn([numerator, denominator], groups, draws, seed)
    kept = below * np.sign(bottom) > 0
    if 1 - kept.mean() > _tail(groups, level):
        return _interval(top / bottom, -np.inf, np.inf, groups, draws, level)
    low, high = _ends(above[kept] / below[kept], groups, level)
    return _interval(top / bottom, low, high, groups, draws, level)


def _drawn(sides: Sequence[Columns], groups: Columns, draws: int, seed: int) -> list[np.ndarray]:
    """The drawn sums of means of each side, [draws]; all sides of a suite share its draws."""
    found = [np.zeros(draws) for _ in sides]
    for place, group in enumerate(groups):
        weights = group_weights(group, draws=draws, seed=seed + 7919 * place)
        weights = weights / weights.sum(axis=1, keepdims=True)
        for total, side in zip(found, sides, strict=True):
            total += weights @ side[place]
    return found


def _tail(groups: Columns, level: float) -> float:
    """The quantile widened for the number of groups in the smallest suite (Hesterberg 2015, section 5.3)."""
    fewest = min(len(set(group.tolist())) for group in groups)
    if fewest < 2:
        return 0.0
    return float(ndtr(stdtrit(fewest - 1, (1 - level) / 2) * np.sqrt(fewest / (fewest - 1))))


def _ends(drawn: np.ndarray, groups: Columns, level: float) -> tuple[float, float]:
    tail = _tail(groups, level)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _interval(value: float, low: float, high: float, groups: Columns, draws: int, level: float) -> Interval:
    n_groups = sum(len(set(group.tolist())) for group in groups)
    words = f"percentile group bootstrap within suites, {draws} draws"
    return Interval(value, low, high, level, sum(len(group) for group in groups), n_groups, words)
