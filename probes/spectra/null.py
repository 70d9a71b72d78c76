"""What both spectra read on the same model plus noise: residuals with their signs flipped by fold of groups."""

from __future__ import annotations

import numpy as np

from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import Gathered
from taxlens.probes.spectra.components import Components, loss_matrix


def null_draws(
    gathered: Gathered, basis: Components, *, draws: int, seed: int, with_loss: bool
) -> dict[str, np.ndarray]:
    """Return the spectra of `draws` null pairs, {"gain": [draws, r], "loss": [draws, r]}.

    A null pair is (x, x + s e): the base rows, and the same rows plus the residuals e of the ridge map
    from base to aligned, with one sign s = +-1 for each fold of groups. It keeps the noise's own size,
    shape and dependence within groups, and has no direction weakened or lost beyond what that noise does.

    Args:
        gathered: one layer.
        basis: base components.
        draws: number of null pairs.
        seed: of the signs.
        with_loss: also draw the loss spectrum.
    """
    A = gathered.total.cov_xx()
    cross, noise = _residual_sums(gathered, basis)
    signs = _signs(len(cross), draws, seed)
    weights = (basis.values + basis.penalty_x)[:, None]
    still, flips = basis.vectors.T @ A / weights, basis.vectors.T @ cross / weights
    drawn: dict[str, list[np.ndarray]] = {"gain": [], "loss": []} if with_loss else {"gain": []}
    for sign in signs:
        W = still + np.tensordot(sign, flips, axes=1)
        drawn["gain"].append(np.sqrt(np.maximum(np.linalg.eigvalsh(W @ W.T), 0)))
        if with_loss:
            moved = np.tensordot(sign, cross, axes=1)
            B = A + moved + moved.T + noise
            values = np.linalg.eigvalsh(loss_matrix(basis, A + moved, B))
            drawn["loss"].append(np.clip(values[::-1], 0, 1))
    return {name: np.array(rows) for name, rows in drawn.items()}


def _residual_sums(gathered: Gathered, basis: Components) -> tuple[np.ndarray, np.ndarray]:
    """Cross-covariance of base and residual by fold [folds, d, d], and the residual's covariance [d, d]."""
    total = gathered.total
    n, A, C = total.n, total.cov_xx(), total.cov_xy()
    if n >= 2 * len(A):
        values, vectors = np.linalg.eigh(A)
        shrunk = values / (values + basis.penalty_x)
        W = vectors @ ((vectors.T @ C) / (values + basis.penalty_x)[:, None])
    else:
        shrunk = basis.values / (basis.values + basis.penalty_x)
        W = basis.vectors @ ((basis.vectors.T @ C) / (basis.values + basis.penalty_x)[:, None])
    mean = (total.mean_x(), total.mean_y())
    cross = np.stack([_residual_cross(fold.shifted(*mean), W) for fold in gathered.folds]) / n
    noise = total.cov_yy() - C.T @ W - W.T @ C + W.T @ A @ W
    fitted = float(shrunk.sum()) / n  # share of the noise that the fit took up
    widen = 1 / np.sqrt(max(1 - fitted - 1 / len(gathered.folds), 0.1))
    return widen * cross, (noise + noise.T) / 2 / (1 - fitted)


def _residual_cross(fold: PairMoments, W: np.ndarray) -> np.ndarray:
    return fold.xy - fold.xx @ W


def _signs(folds: int, draws: int, seed: int) -> np.ndarray:
    """Random signs [draws, folds], never all equal (that is the data itself) where folds allow."""
    rng = np.random.default_rng([seed, 4])
    signs = 1.0 - 2.0 * rng.integers(0, 2, size=(draws, folds))
    if folds > 1:
        alike = np.abs(signs.sum(1)) == folds
        signs[alike, rng.integers(0, folds, size=int(alike.sum()))] *= -1
    return signs
