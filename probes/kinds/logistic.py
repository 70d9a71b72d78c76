"""Logistic regression by Newton's method, in the training rows' own basis, so that n < d costs n."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logsumexp

_STEPS = 100
_TOLERANCE = 1e-10


def fit_logistic(X: np.ndarray, codes: np.ndarray, *, n_classes: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (coefficients [q, d], intercepts [q]) that minimise log-loss + penalty / 2 |coefficients|^2.

    Two classes give one row (the second class positive), more give a softmax row a class whose
    coefficients sum to 0. The intercept is not penalised.

    Args:
        X: [n, d] rows.
        codes: [n] class index.
        n_classes: number of classes.
        penalty: absolute, > 0 (scikit-learn's 1 / C).

    Example:
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> fit_logistic(X, np.array([0, 0, 1, 1]), n_classes=2, penalty=1.0)[0].round(3)
        array([[1.147]])
    """
    mean = X.mean(0)
    centred = X - mean
    if len(X) < X.shape[1]:  # the optimum lies in the span of the rows: an orthonormal basis loses nothing
        basis = np.linalg.qr(centred.T)[0]
        Z = centred @ basis
    else:
        basis, Z = None, centred
    weights = _newton(Z, codes, penalty) if n_classes == 2 else _newton_softmax(Z, codes, n_classes, penalty)
    slopes, offset = weights[:, :-1], weights[:, -1]
    coefficients = slopes if basis is None else slopes @ basis.T
    return coefficients, offset - coefficients @ mean


def _newton(Z: np.ndarray, codes: np.ndarray, penalty: float) -> np.ndarray:
    design = np.hstack([Z, np.ones((len(Z), 1))])
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0
    beta = np.zeros(design.shape[1])
    share = np.clip(codes.mean(), 1e-6, 1 - 1e-6)
    beta[-1] = np.log(share / (1 - share))
    value = _loss(design, codes, beta, ridge)
    for _ in range(_STEPS):
        p = expit(design @ beta)
        gradient = design.T @ (p - codes) + ridge * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := _loss(design, codes, beta - size * step, ridge)) > value + 1e-12 * abs(value) and size > 1e-8:
            size /= 2
        beta, value = beta - size * step, new
        if float(gradient @ step) < _TOLERANCE * max(value, 1.0):
            break
    return beta[None]


def _loss(design: np.ndarray, codes: np.ndarray, beta: np.ndarray, ridge: np.ndarray) -> float:
    logits = design @ beta
    return float(np.logaddexp(0.0, logits).sum() - logits @ codes + 0.5 * (ridge * beta**2).sum())


def _newton_softmax(Z: np.ndarray, codes: np.ndarray, n_classes: int, penalty: float) -> np.ndarray:
    """Newton's method with conjugate gradients for each step: the Hessian is never formed."""
    design = np.hstack([Z, np.ones((len(Z), 1))])
    onehot = (codes[:, None] == np.arange(n_classes)).astype(np.float64)
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0

    def evaluate(W: np.ndarray) -> tuple[float, np.ndarray]:
        logits = design @ W.T
        norm = logsumexp(logits, axis=1, keepdims=True)
        value = float(norm.sum() - (logits * onehot).sum() + 0.5 * (ridge * W**2).sum())
        return value, np.exp(logits - norm)

    W = np.zeros((n_classes, design.shape[1]))
    value, p = evaluate(W)
    for _ in range(_STEPS):
        gradient = (p - onehot).T @ design + ridge * W
        step = _conjugate(design, p, ridge, gradient)
        decrease, size = float((gradient * step).sum()), 1.0
        while True:
            new, q = evaluate(W - size * step)
            if new <= value - 1e-4 * size * decrease + 1e-12 * abs(value) or size < 1e-8:
                break
            size /= 2
        W, value, p = W - size * step, new, q
        if decrease < _TOLERANCE * max(value, 1.0):
            break
    W[:, -1] -= W[:, -1].mean()
    return W


def _conjugate(design: np.ndarray, p: np.ndarray, ridge: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    step, residual = np.zeros_like(gradient), gradient.copy()
    scale = ridge + ((design**2).T @ (p * (1 - p))).T + 1e-9
    z = residual / scale
    direction, rz = z.copy(), float((residual * z).sum())
    goal = 1e-10 * rz
    for _ in range(10 * gradient.shape[1]):
        logits = design @ direction.T
        curved = (p * (logits - (p * logits).sum(1, keepdims=True))).T @ design + ridge * direction
        bend = float((direction * curved).sum())
        if bend <= 0:
            break
        step += (rz / bend) * direction
        residual -= (rz / bend) * curved
        z = residual / scale
        rz, before = float((residual * z).sum()), rz
        if rz <= goal:
            break
        direction = z + (rz / before) * direction
    return step
