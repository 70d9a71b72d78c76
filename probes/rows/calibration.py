"""From scores to probabilities, so that a mere shrink of the scores is not called loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps scores to probabilities: sigmoid(slope * s + offset), or softmax(slope * s) for many classes.

    Args:
        slope: inverse temperature, >= 0 unless scores order the classes the wrong way round.
        offset: added to binary scores, 0 for many classes.
    """

    slope: float
    offset: float = 0.0

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return [n, classes] probabilities of scores [n, 1] (binary) or [n, classes]."""
        if scores.shape[1] == 1:
            second = expit(self.slope * scores[:, 0] + self.offset)
            return np.stack([1.0 - second, second], axis=1)
        logits = self.slope * scores
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


def fit_calibration(scores: np.ndarray, codes: np.ndarray) -> Calibration:
    """Return the calibration of held-out scores, by maximum likelihood with Platt's smoothed targets.

    Fit it on scores that the probe did not see in training (left-out scores of the training folds), and
    use it on the test fold: then log-loss and ECE are honest.

    Args:
        scores: [n, 1] (binary) or [n, classes].
        codes: [n] class index.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> s = rng.normal(size=(4000, 1)); y = (rng.random(4000) < expit(3 * s[:, 0])).astype(int)
        >>> abs(fit_calibration(s, y).slope - 3) < 0.3
        True

    References: Platt 1999; Guo et al. 2017, arXiv 1706.04599 (temperature scaling).
    """
    scale = float(scores.std()) or 1.0
    if scores.shape[1] == 1:
        slope, offset = _newton_binary(scores[:, 0] / scale, codes)
        return Calibration(slope / scale, offset)
    return Calibration(_newton_temperature(scores / scale, codes) / scale)


def _newton_binary(s: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    n_pos, n_neg = float((codes == 1).sum()), float((codes == 0).sum())
    target = np.where(codes == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    design = np.stack([s, np.ones_like(s)], axis=1)
    beta = np.array([0.0, np.log((n_pos + 1) / (n_neg + 1))])
    for _ in range(50):
        p = expit(design @ beta)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (target - p))
        step *= min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return float(beta[0]), float(beta[1])


def _newton_temperature(s: np.ndarray, codes: np.ndarray) -> float:
    n, n_classes = s.shape
    target = np.full((n, n_classes), 1.0 / (n + n_classes))
    target[np.arange(n), codes] += 1.0 - n_classes / (n + n_classes)
    slope = 1.0
    for _ in range(50):
        logits = slope * s
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        mean = (p * s).sum(1)
        gradient = float(((target - p) * s).sum())
        curvature = float(((p * s**2).sum(1) - mean**2).sum()) + 1e-9
        step = float(np.clip(gradient / curvature, -5.0, 5.0))
        slope += step
        if abs(step) < 1e-8:
            break
    return slope
