"""Probes from class means: their difference, and their difference whitened by the spread within classes (LDA)."""

from __future__ import annotations

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.rows.labels import Labels


def fit_diff_of_means(X: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return (coefficients [q, d], intercepts [q]) along the difference of class means.

    No penalty and no covariance: the direction that steering and ablation use. The threshold is half way
    between the means. For regression the direction is the covariance with the label, scaled by least squares.

    Args:
        X: [n, d] rows.
        labels: of the rows.
    """
    mean = X.mean(0)
    if labels.task == "regression":
        y = labels.values - labels.values.mean()
        direction = (X - mean).T @ y / len(y)
        along = (X - mean) @ direction
        slope = float(along @ y) / max(float(along @ along), 1e-300)
        return slope * direction[None], np.array([labels.values.mean() - slope * mean @ direction])
    wanted = [1] if labels.task == "binary" else range(len(labels.classes))
    rows, offsets = [], []
    for code in wanted:
        own = labels.codes == code
        inside, outside = _mean(X, own, mean), _mean(X, ~own, mean)
        rows.append(inside - outside)
        offsets.append(-(inside + outside) @ (inside - outside) / 2)
    return np.stack(rows), np.array(offsets)


def fit_lda(X: np.ndarray, labels: Labels, *, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (coefficients [q, d], intercepts [q]) of linear discriminant analysis with shrunk covariance.

    The pooled within-class covariance is mixed with its mean eigenvalue at share penalty / (1 + penalty),
    as scikit-learn's solver "lsqr" does with that shrinkage.

    Args:
        X: [n, d] rows, n > d.
        labels: of the rows; classes only.
        penalty: relative, >= 0.

    Raises:
        UsageError: for fewer rows than dimensions, where classes pile up on points and nothing is learned.

    References: Ledoit and Wolf 2004 (shrinkage form).
    """
    if len(X) <= X.shape[1]:
        rows = [("training rows", len(X)), ("dimensions", X.shape[1]), ("expected", "more rows than dimensions")]
        raise UsageError(explain("lda needs more rows than dimensions.", rows, "probe='ridge'."))
    n_classes = len(labels.classes)
    share = np.bincount(labels.codes, minlength=n_classes) / len(X)
    means = np.stack([_mean(X, labels.codes == code, X.mean(0)) for code in range(n_classes)])
    inner = X - means[labels.codes]
    within = inner.T @ inner / len(X)
    shrink = penalty / (1 + penalty)
    within = (1 - shrink) * within + shrink * np.trace(within) / len(within) * np.eye(len(within))
    rows = np.linalg.lstsq(within, means.T, rcond=None)[0].T
    offsets = -0.5 * (means * rows).sum(1) + np.log(np.maximum(share, 1e-300))
    if labels.task == "binary":
        return rows[1:] - rows[:1], offsets[1:] - offsets[:1]
    return rows, offsets


def _mean(X: np.ndarray, rows: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return X[rows].mean(0) if rows.any() else otherwise
