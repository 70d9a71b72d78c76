"""The principal components of the base rows, and the two matrices on them that the spectra and their null are read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from taxlens.probes.similarity.cca import count_components

VARIANCE = 0.99
PENALTY = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The leading principal components of the base rows, on which both spectra are taken.

    Args:
        values: [r] their variances, largest first.
        vectors: [d, r] orthonormal.
        penalty_x: ridge penalty added to base variances.
        penalty_y: ridge penalty added to aligned variances.
    """

    values: np.ndarray
    vectors: np.ndarray
    penalty_x: float
    penalty_y: float


def components(
    A: np.ndarray, B: np.ndarray, n: int, *, variance: float = VARIANCE, penalty: float = PENALTY
) -> Components:
    """Return the components that hold `variance` of the base covariance, at most n / 4 of them.

    Args:
        A: base covariance [d, d].
        B: aligned covariance [d, d].
        n: rows behind them.
        variance: share of base variance to hold.
        penalty: in units of the mean eigenvalue of each side.
    """
    values, vectors = np.linalg.eigh(A)
    values, vectors = values[::-1], vectors[:, ::-1]
    r = max(1, min(count_components(values, variance), n // 4))
    scale_x, scale_y = penalty * np.trace(A) / len(A), penalty * np.trace(B) / len(B)
    return Components(values[:r], vectors[:, :r], scale_x, scale_y)


def gain_map(basis: Components, C: np.ndarray) -> np.ndarray:
    """Return the ridge map [r, d_y] from base components to aligned rows, from the cross-covariance C."""
    return (basis.vectors.T @ C) / (basis.values + basis.penalty_x)[:, None]


def loss_matrix(basis: Components, C: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the share of base variance [r, r] (on whitened components) that aligned does not predict."""
    cross = (C.T @ basis.vectors) / np.sqrt(basis.values)
    ridge = B + basis.penalty_y * np.eye(len(B))
    factor = scipy.linalg.cholesky(ridge, lower=True, overwrite_a=True, check_finite=False)
    half = scipy.linalg.solve_triangular(factor, cross, lower=True, check_finite=False)
    return np.eye(len(basis.values)) - half.T @ half
