"""What is rounding and no finding: the one home of shares of a tax, and of effects too small to be told from none."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6
"""Mean differences of a metric below this are rounding (scores in float32 are good to about 1e-6 nats)."""


def is_rounding(value: float | np.ndarray) -> np.ndarray:
    """Whether means of a metric's differences are rounding, elementwise.

    Example:
        >>> is_rounding(np.array([0.0, 1e-9, 1e-3])).tolist()
        [True, True, False]
    """
    return np.abs(np.asarray(value, dtype=np.float64)) < ROUNDING


def share_of(part: float | np.ndarray, whole: float) -> np.ndarray:
    """A part over a whole; NaN where the whole is rounding, of which there are no shares.

    Example:
        >>> float(share_of(0.25, 0.5))
        0.5
        >>> float(share_of(1e-9, 1e-9))
        nan
    """
    part = np.asarray(part, dtype=np.float64)
    return np.full(part.shape, np.nan) if is_rounding(whole) else part / whole


def around_zero(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval ends that leave out 0 only where the value is more than rounding; NaN ends stay NaN.

    Example:
        >>> low, high = around_zero(np.array([1e-9, 0.1]), np.array([5e-10, 0.05]), np.array([2e-9, 0.15]))
        >>> low.tolist(), high.tolist()
        ([0.0, 0.05], [2e-09, 0.15])
    """
    small = is_rounding(value)
    return np.where(small, np.minimum(low, 0.0), low), np.where(small, np.maximum(high, 0.0), high)
