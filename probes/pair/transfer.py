"""Maps from one model's space to the other's, fitted on training rows only, so that a rotation is not called loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taxlens.core.errors import one_of
from taxlens.probes.similarity.procrustes import orthogonal_map

MAPS = ("procrustes", "ridge")
_RIDGE = 1e-3


def fold_map(name: str, source: np.ndarray, target: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a map from the source model's rows to the target's, fitted without labels on these rows.

    `procrustes` turns (and may reflect), scales and shifts: what it brings back was only rotated.
    `ridge` is any affine map at a penalty of 1e-3 of the mean eigenvalue: it may rebuild a concept from
    correlates, so a base probe that reads well after it proves less. Fit on rows disjoint from those read.

    Args:
        name: "procrustes" or "ridge".
        source: [n, d_s] rows of the model to read.
        target: [n, d_t] the same rows in the probe's model.

    Returns:
        Function from [k, d_s] to [k, d_t].

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(100, 4)); turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        >>> bool(np.allclose(fold_map("procrustes", X @ turn, X)(X @ turn), X))
        True
    """
    one_of(name, MAPS, what="map")
    at, to = source.mean(0), target.mean(0)
    x, y = source - at, target - to
    if name == "procrustes":
        turn, values = orthogonal_map(x.T @ y)
        matrix = turn * (values.sum() / max(float((x * x).sum()), 1e-300))
    else:
        matrix = _ridge(x, y)
    return lambda rows: (rows - at) @ matrix + to


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    penalty = _RIDGE * float((x * x).sum()) / x.shape[1] + 1e-300
    if len(x) < x.shape[1]:
        return x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
