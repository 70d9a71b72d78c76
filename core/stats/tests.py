"""Tests of paired differences: exact McNemar, group sign-flip, equivalence, Holm.

Reached through `taxlens.core.stats.intervals`, which is their public home.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr
from scipy.stats import binomtest

from taxlens.core.errors import UsageError
from taxlens.core.stats.rounding import ROUNDING

EXACT_GROUPS = 12


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided exact McNemar p-value for items lost against items won.

    Under no tax each changed item is equally likely lost or won: a binomial test at one
    half. Exact, hence conservative (false alarms of 2-4 % at .05). It treats items
    as independent: where whole groups flip together read `sign_flip_p` instead.

    Args:
        lost: items right in base and wrong in aligned.
        won: items wrong in base and right in aligned.

    Returns:
        p in (0, 1]; 1 where nothing changed.

    Raises:
        UsageError: a negative count.

    Example:
        >>> round(mcnemar_exact(10, 0), 6)
        0.001953

    References:
        McNemar 1947; exact form: Fleiss, Levin and Paik 2003, section 13.1.
    """
    if lost < 0 or won < 0:
        raise UsageError(f"counts of lost and won items cannot be negative: lost {lost}, won {won}.")
    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won, 0.5).pvalue)


def sign_flip_p(
    values: np.ndarray, groups: Sequence[object] | np.ndarray, *, draws: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value that paired differences are centred at zero, flipping whole groups.

    Under no tax, exchanging base and aligned on every item of a group leaves the
    distribution unchanged. Groups that did not change do not count. Exact where the changed groups
    moved equally far (single items right or wrong: then it is `mcnemar_exact`) and by enumeration up to
    12 of them; sampled above.

    Args:
        values: [n] base minus aligned.
        groups: [n] the group of each item.
        draws: random sign vectors when there are too many groups to enumerate.
        seed: of the generator.

    Returns:
        p in (0, 1]; never below 1 / (draws + 1) when sampled, nor 2 / 2^G for G changed groups.

    Example:
        >>> sign_flip_p(np.ones(8), list("abcdefgh"))
        0.0078125
    """
    totals = _totals(values, groups)
    totals = totals[totals != 0]
    if not len(totals):
        return 1.0
    if np.all(np.abs(totals) == np.abs(totals[0])):
        return mcnemar_exact(int((totals > 0).sum()), int((totals < 0).sum()))
    observed = abs(totals.sum())
    slack = 1e-12 * np.abs(totals).sum()
    if len(totals) <= EXACT_GROUPS:
        bits = (np.arange(2 ** len(totals))[:, None] >> np.arange(len(totals))) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ totals) >= observed - slack))
    signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=(draws, len(totals)))
    return float((1 + np.sum(np.abs(signs @ totals) >= observed - slack)) / (draws + 1))


def cluster_standard_error(values: np.ndarray, groups: Sequence[object] | np.ndarray) -> float:
    """Standard error of the mean over items when items of one group move together.

    Args:
        values: [n] one number an item.
        groups: [n] the group of each item.

    Returns:
        sqrt(G/(G-1) sum_g (sum of deviations in g)^2) / n; NaN for a single group.

    Example:
        >>> round(cluster_standard_error(np.array([1.0, 2.0, 3.0]), list("abc")), 6)
        0.57735

    References:
        Liang and Zeger 1986; Miller 2024, arXiv 2411.00640 (clustered errors for evaluations).
    """
    values = np.asarray(values, dtype=np.float64)
    totals = _totals(values - values.mean(), groups)
    if len(totals) < 2:
        return float("nan")
    return float(np.sqrt(len(totals) / (len(totals) - 1) * np.sum(totals**2)) / len(values))


def tost_p(
    values: np.ndarray, groups: Sequence[object] | np.ndarray, margin: float, *, bound: float | None = 1.0
) -> float:
    """p-value for the claim that the mean difference lies inside (-margin, margin).

    "No tax" is a claim of equivalence, not a failure to reject: two one-sided t tests on
    the cluster-robust standard error, G-1 degrees of freedom; the larger p. Where all groups lost the same (their
    error is 0, or rounding), the t test would be certain from two groups. Then the claim rests on what G groups can
    miss: were the mean at the margin, a share of the groups would have to lose up to `bound`, and G groups would
    all be of the others with the probability given. Three hundred unchanged groups show a margin of .01.

    Args:
        values: [n] base minus aligned.
        groups: [n] the group of each item.
        margin: half width of what counts as no tax, in the metric's units.
        bound: most that an item can lose or gain; None: there is no such bound, and equal values show nothing.

    Returns:
        p in (0, 1]; 1 for a single group, where nothing can be shown.

    Raises:
        UsageError: the margin is not positive.

    Example:
        >>> round(tost_p(np.zeros(4), list("abcd"), 0.01), 3)
        0.961

    References:
        Schuirmann 1987; for unchanged groups the exact bound behind the rule of three (Hanley and Lippman-Hand 1983).
    """
    if not margin > 0:
        raise UsageError(f"the margin of an equivalence test must be positive, got {margin}.")
    error, mean = cluster_standard_error(values, groups), float(np.mean(values))
    degrees = len(_totals(values, groups)) - 1
    if degrees < 1:
        return 1.0
    if error < ROUNDING:
        if bound is None or abs(mean) >= margin:
            return 1.0
        return float(((bound - margin) / (bound - abs(mean))) ** (degrees + 1)) if margin < bound else 0.0
    below, above = stdtr(degrees, -(mean + margin) / error), stdtr(degrees, -(margin - mean) / error)
    return float(max(below, above))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted so that any false alarm among them is kept at the level (Holm 1979).

    Args:
        p: [m] raw p-values; NaN entries stay NaN and are not counted.

    Returns:
        [m] adjusted p-values, at most 1, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    steps = raw[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _totals(values: np.ndarray, groups: Sequence[object] | np.ndarray) -> np.ndarray:
    values, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != names.shape or values.size == 0:
        raise UsageError(f"values and groups must be aligned: values {values.shape}, groups {names.shape}.")
    names = names.astype(str) if names.dtype == object else names
    unique, index = np.unique(names, return_inverse=True)
    return np.bincount(index, values, len(unique))
