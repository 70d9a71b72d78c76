"""Decisions about drops: max-T over a family, the corrected t, no-loss as equivalence, and groups needed."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from taxlens.core.errors import UsageError, explain, one_of

NO_LOSS_MARGIN = 0.02


def permutation_p(observed: float, null: np.ndarray) -> float:
    """Return the two-sided permutation p of a statistic, (1 + draws as large) / (1 + draws).

    Args:
        observed: the statistic on the data as they are.
        null: [permutations] the statistic under permutation.
    """
    return float((1 + (np.abs(null) >= abs(observed) - 1e-12).sum()) / (1 + len(null)))


def max_t(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return [m] step-down max-T adjusted two-sided p-values over a family of statistics.

    Each statistic is first divided by its own spread under permutation, so that layers with noisier
    drops do not mask the others. Strong control of the family-wise error where the permutations are
    joint (the same flips for every column). Never below 1 / (permutations + 1).

    Args:
        observed: [m] statistics.
        null: [permutations, m] the same under joint permutations.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> null = np.random.default_rng(0).normal(size=(999, 3))
        >>> max_t(np.array([5.0, 0.1, 0.2]), null)[0]
        np.float64(0.001)

    References: Westfall and Young 1993, algorithm 4.1.
    """
    observed, null = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if observed.ndim != 1 or null.shape[1:] != observed.shape:
        rows = [("observed", observed.shape), ("null", null.shape), ("expected", "[m] and [permutations, m]")]
        raise UsageError(explain("statistics and permutations do not match.", rows))
    spread = np.sqrt((np.vstack([observed[None], null]) ** 2).mean(0))
    spread[spread == 0] = 1.0
    size, draws = np.abs(observed) / spread, np.abs(null) / spread
    order = np.argsort(-size, kind="stable")
    running = np.maximum.accumulate(draws[:, order[::-1]], axis=1)[:, ::-1]
    p = (1 + (running >= size[order] - 1e-12).sum(0)) / (1 + len(null))
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted


def corrected_t(differences: np.ndarray, *, n_folds: int) -> tuple[float, float]:
    """Return (t, two-sided p) of repeated cross-validation differences, corrected for shared training rows.

    Args:
        differences: [repeats * folds] paired differences.
        n_folds: folds of each repeat: test over training rows is 1 / (n_folds - 1).

    Raises:
        UsageError: for fewer than two differences.

    References: Nadeau and Bengio 2003, equation 10; Bouckaert and Frank 2004.
    """
    J = len(differences)
    if J < 2:
        raise UsageError(explain("the corrected t needs two differences.", [("got", J)]))
    variance = float(np.var(differences, ddof=1)) * (1 / J + 1 / (n_folds - 1))
    mean = float(np.mean(differences))
    if variance == 0:
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / math.sqrt(variance)
    return t, float(2 * student.sf(abs(t), J - 1))


def equivalence_p(value: float, draws: np.ndarray, *, margin: float = NO_LOSS_MARGIN) -> float:
    """Return the TOST p that |drop| < margin: "no loss" is claimed where it is small, not where p is large.

    Args:
        value: the drop.
        draws: its group-bootstrap draws.
        margin: largest drop that counts as none (AUC).

    References: Schuirmann 1987.
    """
    spread = float(np.nanstd(draws))
    if spread == 0 or not np.isfinite(spread):
        return 0.0 if abs(value) < margin and spread == 0 else 1.0
    return float(max(norm.sf((margin + value) / spread), norm.sf((margin - value) / spread)))


def groups_needed(
    spread: float, n_groups: int, *, drop: float, power: float = 0.8, alpha: float = 0.05, tests: int = 1
) -> int:
    """Return how many groups are needed to find a drop, from the spread seen with n_groups.

    The spread of a drop falls with the square root of the number of groups (of the same size).

    Args:
        spread: standard deviation of the drop, such as that of its bootstrap or permutation draws.
        n_groups: groups it was seen with.
        drop: the drop to find (AUC).
        power: probability of finding it.
        alpha: two-sided level.
        tests: statistics in the family (Bonferroni, hence an upper bound under max-T).

    Example:
        >>> groups_needed(0.02, 150, drop=0.06)
        131

    Raises:
        UsageError: if spread, n_groups or drop is not positive.
    """
    if min(spread, n_groups, drop) <= 0:
        rows = [("spread", spread), ("n_groups", n_groups), ("drop", drop), ("expected", "all > 0")]
        raise UsageError(explain("groups_needed needs positive numbers.", rows))
    reach = norm.isf(alpha / (2 * tests)) + norm.ppf(power)
    return math.ceil(n_groups * (spread * reach / drop) ** 2)


def choose_test(cosine: float, asked: str, *, least: float = 0.9) -> str:
    """Return which test a layer's drop gets: "swap", or "corrected_t" where the pair has drifted apart.

    Swapping rows of two models mixes two bases; under a large rotation it never rejects.

    Args:
        cosine: mean cosine of base and aligned rows.
        asked: "auto", "swap" or "corrected_t".
        least: mean cosine at which rows may be swapped.
    """
    one_of(asked, ("auto", "swap", "corrected_t"), what="test")
    if asked != "auto":
        return asked
    return "swap" if cosine >= least else "corrected_t"


def adjust(tests: list[str], observed: np.ndarray, nulls: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return [m] adjusted p-values of a family tested partly by swaps, partly by the corrected t.

    Swapped statistics are adjusted by max-T, the others by Holm; where both kinds occur each is doubled,
    which bounds the family-wise error of the two together.

    Args:
        tests: "swap" or "corrected_t" (or "none") of each statistic.
        observed: [m] statistics.
        nulls: [permutations, m]; columns of other tests are not read.
        p: [m] unadjusted p-values.
    """
    from taxlens.core.stats.intervals import holm

    kinds = np.array(tests)
    out = np.full(len(p), np.nan)
    swapped, corrected = np.flatnonzero(kinds == "swap"), np.flatnonzero(kinds == "corrected_t")
    share = 2.0 if len(swapped) and len(corrected) else 1.0
    if len(swapped):
        out[swapped] = np.minimum(share * max_t(observed[swapped], nulls[:, swapped]), 1.0)
    if len(corrected):
        out[corrected] = np.minimum(share * holm(p[corrected]), 1.0)
    return out
