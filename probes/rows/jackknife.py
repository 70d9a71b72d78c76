"""Intervals for any function of moments, by leaving out folds of whole groups."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from taxlens.core.stats.intervals import Interval


def jackknife_interval(
    value: float,
    left_out: np.ndarray,
    *,
    n_items: int,
    n_groups: int,
    level: float = 0.95,
    low: float = -np.inf,
    high: float = np.inf,
) -> Interval:
    """Return the delete-a-fold jackknife interval of a statistic, clipped to its range.

    value +- t sqrt((K - 1)/K sum_k (left_out_k - mean)^2), t the Student quantile with K - 1 degrees of
    freedom. Folds must hold whole groups. For smooth statistics; with K < 2 the ends are NaN.

    Args:
        value: the statistic on all rows.
        left_out: [K] the statistic with each fold left out.
        n_items: rows behind it.
        n_groups: groups behind it.
        level: nominal coverage.
        low: lower end of the statistic's range.
        high: upper end of the statistic's range.

    Example:
        >>> jackknife_interval(0.5, np.array([0.5, 0.5, 0.5]), n_items=30, n_groups=3).low
        0.5

    References:
        Efron and Tibshirani 1993, chapter 11; Busing, Meijer and van der Leeden 1999 (groups).
    """
    K = len(left_out)
    words = f"jackknife over {K} folds of whole groups"
    if K < 2:
        return Interval(value, np.nan, np.nan, level, n_items, n_groups, words)
    error = np.sqrt((K - 1) / K * ((left_out - left_out.mean()) ** 2).sum())
    reach = float(-stdtrit(K - 1, (1 - level) / 2) * error)
    ends = np.clip([value - reach, value + reach], min(low, value), max(high, value))
    return Interval(value, float(ends[0]), float(ends[1]), level, n_items, n_groups, words)
