"""Ridge from moments: one eigendecomposition a fold serves every penalty, label and left-out group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

PENALTIES = tuple(10.0**power for power in range(-6, 3))
_RANK_TOLERANCE = 1e-12
_SOLVE_BY_ROWS = 128


@dataclass(frozen=True, slots=True, eq=False)
class FoldMoments:
    """Sums of one model's rows by fold, from the overall mean: the training part of a fold is total minus fold.

    Args:
        n: [folds] rows.
        shift: [d] overall mean; target_shift: [q].
        x: [folds, d] sums; xx: [folds, d, d]; xt: [folds, d, q]; t: [folds, q].
    """

    n: np.ndarray
    shift: np.ndarray
    target_shift: np.ndarray
    x: np.ndarray
    xx: np.ndarray
    xt: np.ndarray
    t: np.ndarray

    @classmethod
    def from_rows(cls, X: np.ndarray, targets: np.ndarray, fold: np.ndarray, n_folds: int) -> FoldMoments:
        """Return the sums of rows X [n, d] and targets [n, q] by fold [n]."""
        shift, target_shift = X.mean(0), targets.mean(0)
        parts = []
        for number in range(n_folds):
            rows = np.flatnonzero(fold == number)
            x, t = X[rows] - shift, targets[rows] - target_shift
            parts.append((len(rows), x.sum(0), x.T @ x, x.T @ t, t.sum(0)))
        n, x, xx, xt, t = (np.stack([np.asarray(part[i], dtype=np.float64) for part in parts]) for i in range(5))
        return cls(n, shift, target_shift, x, xx, xt, t)

    def training(self, kept: Sequence[int]) -> RidgeSpectrum:
        """Return the eigendecomposition of the rows of the folds in `kept`."""
        scatter, cross, mean, target_mean, n, unit = self._centred(kept)
        values, vectors = np.linalg.eigh(scatter)
        return RidgeSpectrum.of(values, vectors, cross, mean, target_mean, n, unit)

    def solve(self, kept: Sequence[int], *, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (coefficients [q, d], intercepts [q]) of the ridge on the folds in `kept`, at one penalty above 0.

        What `training(kept).coefficients` gives, by one factorisation instead of an eigendecomposition.
        """
        scatter, cross, mean, target_mean, _, unit = self._centred(kept)
        scatter[np.diag_indices_from(scatter)] += penalty * unit
        coefficients = scipy.linalg.solve(scatter, cross, assume_a="pos", overwrite_a=True, check_finite=False).T
        return coefficients, target_mean - coefficients @ mean

    def _centred(self, kept: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, float]:
        """Scatter, cross-scatter with the targets, means, rows, and the unit of penalties, of some folds."""
        rest = np.isin(np.arange(len(self.n)), kept)
        n, x, t = self.n[rest].sum(), self.x[rest].sum(0), self.t[rest].sum(0)
        scatter = self.xx[rest].sum(0) - np.outer(x, x) / n
        cross = self.xt[rest].sum(0) - np.outer(x, t) / n
        unit = max(float(np.trace(scatter)), np.finfo(float).tiny) / len(scatter)
        return scatter, cross, self.shift + x / n, self.target_shift + t / n, float(n), unit


@dataclass(frozen=True, slots=True, eq=False)
class RidgeSpectrum:
    """Centred training rows in their eigenbasis.

    Args:
        values: [r] eigenvalues of the scatter matrix (sum over rows), above numerical rank.
        vectors: [d, r] eigenvectors.
        cross: [r, q] eigenvectors' times centred X'T.
        mean: [d] row mean; target_mean: [q].
        n: rows.
        unit: mean eigenvalue over d, the unit of relative penalties.
    """

    values: np.ndarray
    vectors: np.ndarray
    cross: np.ndarray
    mean: np.ndarray
    target_mean: np.ndarray
    n: float
    unit: float

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        vectors: np.ndarray,
        cross: np.ndarray,
        mean: np.ndarray,
        target_mean: np.ndarray,
        n: float,
        unit: float,
    ) -> RidgeSpectrum:
        """Return the spectrum without directions below numerical rank; cross is [d, q] = centred X'T."""
        kept = values > max(values[-1], 0.0) * _RANK_TOLERANCE
        vectors = vectors[:, kept]
        return cls(values[kept], vectors, vectors.T @ cross, mean, target_mean, n, unit)

    @classmethod
    def from_rows(cls, X: np.ndarray, targets: np.ndarray) -> RidgeSpectrum:
        """Return the spectrum of rows X [n, d] with n < d, through the n x n Gram matrix."""
        mean, target_mean = X.mean(0), targets.mean(0)
        x, t = X - mean, targets - target_mean
        values, left = np.linalg.eigh(x @ x.T)
        kept = values > max(values[-1], 0.0) * _RANK_TOLERANCE
        vectors = (x.T @ left[:, kept]) / np.sqrt(values[kept])
        unit = max(float(values.sum()), np.finfo(float).tiny) / X.shape[1]
        return cls(values[kept], vectors, vectors.T @ (x.T @ t), mean, target_mean, float(len(X)), unit)

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return rows X [k, d] in the eigenbasis [k, r], from the training mean."""
        return X @ self.vectors - self.mean @ self.vectors

    def columns(self, columns: slice) -> RidgeSpectrum:
        """Return the same rows with some of the targets."""
        return replace(self, cross=self.cross[:, columns], target_mean=self.target_mean[columns])

    def weights(self, penalty: np.ndarray) -> np.ndarray:
        """Return [r, q] ridge weights in the eigenbasis; penalty [q], relative to the mean eigenvalue."""
        return self.cross / (self.values[:, None] + self.unit * np.asarray(penalty))

    def coefficients(self, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (coefficients [q, d], intercepts [q]) of the ridge with penalty [q]."""
        coefficients = (self.vectors @ self.weights(penalty)).T
        return coefficients, self.target_mean - coefficients @ self.mean


def decompose(X: np.ndarray, targets: np.ndarray) -> RidgeSpectrum:
    """Return the spectrum of rows X [n, d] by the smaller of the two matrices, d x d or n x n."""
    if len(X) > X.shape[1]:
        return FoldMoments.from_rows(X, targets, np.zeros(len(X), dtype=np.int64), 1).training([0])
    return RidgeSpectrum.from_rows(X, targets)


def left_out_residuals(
    spectrum: RidgeSpectrum, Z: np.ndarray, targets: np.ndarray, groups: np.ndarray, *, penalties: np.ndarray
) -> np.ndarray:
    """Return [p, k, q] residuals of rows from the ridge refitted without their group, in closed form.

    For a group g of the training rows, with hat matrix H = 1/n + Z (S + penalty)^-1 Z', the residuals are
    (I - H_gg)^-1 (T_g - fitted_g): exactly those of refitting without g at the same absolute penalty.
    Groups of more than 128 rows are left out by an eigendecomposition without them instead (same values).

    Args:
        spectrum: of all training rows.
        Z: [k, r] some training rows in the eigenbasis; every group in it must be whole.
        targets: [k, q] their targets.
        groups: [k] their groups.
        penalties: [p] relative penalties.
    """
    out = np.empty((len(penalties), *targets.shape))
    for rows in same_size_groups(groups):
        if rows.shape[1] <= _SOLVE_BY_ROWS:
            for i, penalty in enumerate(penalties):
                out[i, rows] = _solve(spectrum, Z[rows], targets[rows], float(penalty))
        else:
            for group in rows:
                out[:, group] = _downdate(spectrum, Z[group], targets[group], penalties)
    return out


def left_out_reading(
    spectrum: RidgeSpectrum,
    Z: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    read: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Return [k, q] predictions for rows `read` by the ridge refitted without each row's group.

    Args:
        spectrum: of all training rows.
        Z: [k, r] training rows in the eigenbasis (whole groups).
        targets: [k, q] their targets.
        groups: [k] their groups.
        read: [k, r] the rows to read (the same rows, in either model), projected likewise.
        penalty: relative penalty.
    """
    out = np.empty(targets.shape)
    shrink = 1.0 / (spectrum.values + spectrum.unit * penalty)
    fitted = spectrum.target_mean + read @ (spectrum.cross * shrink[:, None])
    for rows in same_size_groups(groups):
        gone = _solve(spectrum, Z[rows], targets[rows], penalty)
        hat = 1.0 / spectrum.n + (read[rows] * shrink) @ Z[rows].swapaxes(-1, -2)
        out[rows] = fitted[rows] - hat @ gone
    return out


def same_size_groups(groups: np.ndarray) -> list[np.ndarray]:
    """Return row indices [groups of a size, size], one array for each size, so that groups can be batched."""
    codes, size = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(codes, kind="stable")
    start = np.r_[0, np.cumsum(size)[:-1]]
    return [order[start[size == m][:, None] + np.arange(m)] for m in np.unique(size)]


def _solve(spectrum: RidgeSpectrum, Z: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Return left-out residuals [g, m, q] of groups Z [g, m, r]."""
    shrink = 1.0 / (spectrum.values + spectrum.unit * penalty)
    residual = targets - spectrum.target_mean - Z @ (spectrum.cross * shrink[:, None])
    hat = 1.0 / spectrum.n + (Z * shrink) @ Z.swapaxes(-1, -2)
    if Z.shape[-2] == 1:
        return residual / np.maximum(1.0 - hat, 1e-12)
    return np.linalg.solve((1.0 + 1e-12) * np.eye(Z.shape[-2]) - hat, residual)


def _downdate(spectrum: RidgeSpectrum, Z: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Return [p, m, q] residuals of one large group Z [m, r] from the ridge without it."""
    rest = spectrum.n - len(Z)
    z, t = Z.sum(0), (targets - spectrum.target_mean).sum(0)
    scatter = np.diag(spectrum.values) - Z.T @ Z - np.outer(z, z) / rest
    cross = spectrum.cross - Z.T @ (targets - spectrum.target_mean) - np.outer(z, t) / rest
    values, vectors = np.linalg.eigh(scatter)
    values = np.maximum(values, 0.0)
    inner, right = (Z + z / rest) @ vectors, vectors.T @ cross
    base = targets - spectrum.target_mean + t / rest
    return np.stack([base - inner @ (right / (values + spectrum.unit * p)[:, None]) for p in penalties])
