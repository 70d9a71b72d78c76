"""Where the ends of an interval are read in the sorted draws of a group bootstrap.

The quantiles of plain percentile intervals stand too close together, for two reasons. A draw
has variance (G-1)/G of the truth; and the variance is itself an estimate, the rougher the fewer
groups carry it. Both are put right by reading the draws at Phi(-t sqrt(G/(G-1))) and its
complement, with t the Student quantile whose degrees of freedom come from the kurtosis of the
groups' deviations: G-1 where they look normal, 2 where one group carries all.

References:
    Hesterberg 2015, arXiv 1411.5279, section 5.3 (expanded percentiles); Satterthwaite 1946 (degrees of
    freedom from the variance of a variance); Efron 1987 (BCa).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

FEWEST_DEGREES = 2.0


def degrees_of_freedom(deviations: np.ndarray) -> np.ndarray:
    """How well the variance over groups is known, as degrees of freedom of a t quantile.

    Args:
        deviations: [G, k] each group's sum of deviations from the mean over items.

    Returns:
        [k] in 2..G-1: 2 G / (kurtosis - (G-3)/(G-1)), from the variance of a sample variance; G-1 for a
        column without spread.

    Example:
        >>> degrees_of_freedom(np.array([[1.0], [-1.0], [1.0], [-1.0]])).tolist()
        [3.0]
    """
    n_groups = len(deviations)
    most = max(n_groups - 1.0, 1.0)
    squares = deviations**2
    total = squares.sum(axis=0)
    flat = total <= 0
    kurtosis = n_groups * (squares**2).sum(axis=0) / np.where(flat, 1.0, total) ** 2
    excess = kurtosis - (n_groups - 3) / max(n_groups - 1, 1)
    degrees = 2 * n_groups / np.where(excess > 0, excess, 1.0)
    return np.where(flat | (excess <= 0), most, np.clip(degrees, min(FEWEST_DEGREES, most), most))


def tails(deviations: np.ndarray, level: float) -> np.ndarray:
    """The lower tail probability at which the draws of each column are read, [k].

    Args:
        deviations: [G, k] each group's sum of deviations from the mean over items (or, for a ratio, of the
            numerator from ratio times denominator).
        level: nominal coverage.
    """
    n_groups = len(deviations)
    if n_groups < 2:
        return np.full(deviations.shape[1], (1 - level) / 2)
    return _read_at(degrees_of_freedom(deviations), n_groups / (n_groups - 1), level)


def welch_tail(sides: Sequence[np.ndarray], level: float) -> float:
    """The same for a sum or difference of means over disjoint sets of items, by Welch's rule.

    Args:
        sides: of each set, [G] each group's sum of deviations from its mean, divided by the items of its set.
        level: nominal coverage.

    Returns:
        The tail probability; of one set it is `tails`'.
    """
    several = [side[:, None] for side in sides if len(side) > 1]
    drawn = np.array([(side**2).sum() for side in several])
    if not several or not drawn.any():
        return (1 - level) / 2
    true = drawn * np.array([len(side) / (len(side) - 1) for side in several])
    degrees = np.array([degrees_of_freedom(side)[0] for side in several])
    welch = true.sum() ** 2 / (true**2 / degrees).sum()
    return float(_read_at(np.array([welch]), true.sum() / drawn.sum(), level)[0])


def ends(
    replicates: np.ndarray, lower: np.ndarray | float, jackknife: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Interval ends [k] of bootstrap replicates.

    Args:
        replicates: [draws, k]; centred at the estimate where a jackknife is given.
        lower: [k] tail probability of the lower end; the upper end is read at its complement.
        jackknife: [G, k] means with each group left out, for BCa; None for percentiles.
    """
    ordered = np.sort(replicates, axis=0)
    tail = np.broadcast_to(np.asarray(lower, dtype=np.float64), ordered.shape[1:])
    probabilities = np.stack([tail, 1 - tail]) if jackknife is None else _bca(ordered, jackknife, tail)
    place = probabilities * (len(ordered) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    at_below, at_above = np.take_along_axis(ordered, below, 0), np.take_along_axis(ordered, above, 0)
    quantiles = at_below + (place - below) * (at_above - at_below)
    return quantiles[0], quantiles[1]


def _read_at(degrees: np.ndarray, inflation: float, level: float) -> np.ndarray:
    return ndtr(stdtrit(degrees, (1 - level) / 2) * np.sqrt(inflation))


def _bca(ordered: np.ndarray, jackknife: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """Where BCa reads its quantiles, [2, k]; the given tails for a column without spread."""
    slack = 1e-10 * np.abs(ordered).max(axis=0)  # ties with the estimate survive rounding: hits are discrete
    below = ((ordered < -slack).sum(axis=0) + 0.5 * (np.abs(ordered) <= slack).sum(axis=0)) / len(ordered)
    bias = ndtri(np.clip(below, 0.5 / len(ordered), 1 - 0.5 / len(ordered)))
    deviation = jackknife.mean(axis=0) - jackknife
    spread = (deviation**2).sum(axis=0)
    flat = spread <= 0
    acceleration = (deviation**3).sum(axis=0) / (6 * np.where(flat, 1.0, spread) ** 1.5)
    probabilities = []
    for z in (ndtri(tail), -ndtri(tail)):
        shifted = bias + z
        scale = np.maximum(1 - acceleration * shifted, 1e-3)
        probabilities.append(np.where(flat, ndtr(z), ndtr(bias + shifted / scale)))
    return np.stack(probabilities)
