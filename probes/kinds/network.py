"""A one-hidden-layer network: the non-linear control that tells a concept erased from one merely re-encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from taxlens.probes.rows.labels import Labels

HIDDEN = 32
_AXES = 64
_STEPS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """tanh network on the leading, whitened principal axes of its training rows.

    Args:
        mean: [d]; axes: [d, k] whitening axes.
        inner: [k + 1, hidden]; outer: [hidden + 1, q] weights, biases in the last row.
    """

    mean: np.ndarray
    axes: np.ndarray
    inner: np.ndarray
    outer: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return [n, q] scores of rows X [n, d]."""
        return _forward((X - self.mean) @ self.axes, self.inner, self.outer)[1]


def fit_network(X: np.ndarray, labels: Labels, *, penalty: float, seed: int, hidden: int = HIDDEN) -> Network:
    """Return a network fitted by L-BFGS to log-loss (squared error for regression) with weight decay.

    It sees up to 64 leading principal axes, each scaled to unit variance. It reads what no linear probe
    can (an XOR of two features) and overfits sooner: compare it with the shuffled-label control.

    Args:
        X: [n, d] rows.
        labels: of the rows.
        penalty: weight decay, beside the mean loss.
        seed: of the starting weights.
        hidden: units.
    """
    mean = X.mean(0)
    axes = _whitening(X - mean)
    Z, target = (X - mean) @ axes, _target(labels)
    rng = np.random.default_rng(seed)
    k, q = Z.shape[1], target.shape[1]
    inner, outer = rng.normal(size=(k + 1, hidden)) / np.sqrt(k + 1), 0.1 * rng.normal(size=(hidden + 1, q))
    cut = inner.size
    regression = labels.task == "regression"

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = flat[:cut].reshape(inner.shape), flat[cut:].reshape(outer.shape)
        h, out = _forward(Z, a, b)
        value, slope = _loss(out, target, regression)
        value += 0.5 * penalty * float((a[:-1] ** 2).sum() + (b[:-1] ** 2).sum())
        back = (slope @ b[:-1].T) * (1 - h**2)
        ga, gb = np.vstack([Z.T @ back, back.sum(0)]), np.vstack([h.T @ slope, slope.sum(0)])
        ga[:-1] += penalty * a[:-1]
        gb[:-1] += penalty * b[:-1]
        return value, np.concatenate([ga.ravel(), gb.ravel()])

    start = np.concatenate([inner.ravel(), outer.ravel()])
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return Network(mean, axes, best[:cut].reshape(inner.shape), best[cut:].reshape(outer.shape))


def _whitening(centred: np.ndarray) -> np.ndarray:
    if len(centred) < centred.shape[1]:
        values, left = np.linalg.eigh(centred @ centred.T)
        keep = np.flatnonzero(values > values[-1] * 1e-10)[-_AXES:]
        vectors = centred.T @ left[:, keep] / np.sqrt(values[keep])
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        keep = np.flatnonzero(values > values[-1] * 1e-10)[-_AXES:]
        vectors = vectors[:, keep]
    return vectors * np.sqrt(len(centred) / values[keep])


def _target(labels: Labels) -> np.ndarray:
    if labels.task == "regression":
        return labels.values[:, None]
    if labels.task == "binary":
        return (labels.codes == 1).astype(np.float64)[:, None]
    return (labels.codes[:, None] == np.arange(len(labels.classes))).astype(np.float64)


def _forward(Z: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h = np.tanh(Z @ inner[:-1] + inner[-1])
    return h, h @ outer[:-1] + outer[-1]


def _loss(out: np.ndarray, target: np.ndarray, regression: bool) -> tuple[float, np.ndarray]:
    n = len(out)
    if regression:
        return 0.5 * float(((out - target) ** 2).sum()) / n, (out - target) / n
    if out.shape[1] == 1:
        p = 0.5 * (1 + np.tanh(out / 2))
        return float((np.logaddexp(0.0, out) - out * target).sum()) / n, (p - target) / n
    norm = logsumexp(out, axis=1, keepdims=True)
    return float(norm.sum() - (out * target).sum()) / n, (np.exp(out - norm) - target) / n
