"""Canonical correlations from moments, and the two summaries of them that papers quote."""

from __future__ import annotations

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.rows.moments import PairMoments

VARIANCE = 0.99
RANK_TOLERANCE = 1e-10


def canonical_correlations(
    moments: PairMoments, *, variance: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return canonical correlations [k], largest first, and the weights [d_x, k] and [d_y, k].

    Weights make unit-variance, mutually uncorrelated variables of the centred rows. Correlations are
    invariant to any invertible linear map of either side, for which they pay: directions of no variance
    count as much as any other, and with n < d_x + d_y some are 1 whatever the rows hold.

    Args:
        moments: of the paired rows.
        variance: first keep the leading principal components that hold this share of the variance of each
            side; all of numerically non-zero variance if left out.

    Raises:
        UsageError: fewer than 2 rows a dimension kept, where correlations would be an artefact.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(500, 2)), rng.normal(size=(500, 2))
        >>> Y[:, 0] = X.sum(1)
        >>> round(canonical_correlations(PairMoments.from_blocks([(X, Y)]))[0][0], 12)
        1.0

    References:
        Hotelling 1936; Bjoerck and Golub 1973 (as singular values of a product of orthonormal bases).
    """
    white_x = whitener(moments.cov_xx(), variance)
    white_y = whitener(moments.cov_yy(), variance)
    kept = max(white_x.shape[1], white_y.shape[1])
    if moments.n < 2 * kept:
        rows = [
            ("rows", moments.n),
            ("dimensions kept", f"base {white_x.shape[1]}, aligned {white_y.shape[1]}"),
            ("expected", f"at least {2 * kept} rows (mean CCA is 1 for n < 2d, whatever the rows hold)"),
        ]
        fix = "more rows, svcca with a smaller share of variance, or cka or procrustes."
        raise UsageError(explain("too few rows for canonical correlations.", rows, fix))
    left, rho, right = np.linalg.svd(white_x.T @ moments.cov_xy() @ white_y, full_matrices=False)
    return np.clip(rho, 0, 1), white_x @ left, white_y @ right.T


def whitener(covariance: np.ndarray, variance: float | None) -> np.ndarray:
    """Return W [d, k] with W' A W = 1 on the leading components that hold a share of the variance of A.

    Args:
        covariance: A [d, d].
        variance: share to hold (the fewest components that reach it); all of rank if None.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = count_components(values, variance)
    return vectors[:, :keep] / np.sqrt(values[:keep])


def count_components(values: np.ndarray, variance: float | None) -> int:
    """Return the fewest leading eigenvalues [d] that hold a share of their sum (all of rank if None)."""
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    if variance is None:
        return rank
    share = np.cumsum(values) / values.sum()
    return min(int(np.searchsorted(share, variance * (1 - 1e-12)) + 1), rank)


def cca(moments: PairMoments) -> float:
    """Return the mean squared canonical correlation, in [0, 1] (Pillai's trace over min(d_x, d_y)).

    1 where the smaller space is a linear image of the larger; for independent rows about
    max(d_x, d_y) / n. Invariant to every invertible linear map, so blind to what it rescales.

    Raises:
        UsageError: fewer than 2 rows a dimension.

    References:
        Kornblith et al. 2019, arXiv 1905.00414, table 1 (R^2_CCA).
    """
    rho = canonical_correlations(moments)[0]
    return float((rho**2).mean())


def svcca(moments: PairMoments, *, variance: float = VARIANCE) -> float:
    """Return the mean canonical correlation of the leading components of each side, in [0, 1].

    Both sides are first reduced to the principal components that hold 99 % of their variance. Invariant
    to rotation, isotropic scale and translation. Published codes differ in the summary (mean of rho,
    here as in the paper, or of rho squared) and in how many components they keep.

    Args:
        moments: of the paired rows.
        variance: share of variance to keep on each side.

    Raises:
        UsageError: fewer than 2 rows a component kept.

    References:
        Raghu et al. 2017, arXiv 1706.05806, section 2.
    """
    return float(canonical_correlations(moments, variance=variance)[0].mean())


def pwcca(moments: PairMoments) -> float:
    """Return the mean canonical correlation weighted by what each canonical variable carries of base.

    In [0, 1]; not symmetric (weights come from base). Weights are alpha_i = sum_j |<h_i, z_j>|, h_i the
    canonical variables and z_j the centred base neurons, as in the paper's equation; three published
    variants (weights from the canonical directions, from the smaller side, or from uncentred rows) differ
    in the second digit. Depends on the neuron basis of base: not invariant to its rotation.

    Raises:
        UsageError: fewer than 2 rows a dimension.

    References:
        Morcos, Raghu and Bengio 2018, arXiv 1806.05759, section 2.
    """
    rho, weights_x, _ = canonical_correlations(moments)
    alpha = np.abs(weights_x.T @ moments.cov_xx()).sum(1)
    return float(alpha @ rho / alpha.sum())
