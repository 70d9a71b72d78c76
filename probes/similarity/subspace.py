"""Do the leading directions of variance span the same subspace?"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from taxlens.probes.rows.moments import PairMoments

RANK = 10


def subspace_overlap(moments: PairMoments, *, rank: int = RANK) -> float:
    """Return the mean squared cosine of the angles between the leading principal subspaces, in [0, 1].

    1 where the `rank` leading principal components of base and aligned span the same space, rank / d for
    random spaces. Compares spaces and not rows: a permutation of rows does not change it. Invariant to
    isotropic scale, translation and a common rotation; not to a rotation of one side, so it is for pairs
    that share a basis (a fine-tune and its base). Unstable where the eigenvalues on both sides of the
    cut are close: read it against its split-half ceiling.

        |U' V|^2 / rank,    U, V the leading eigenvectors of the two covariances

    Args:
        moments: of the rows, equal widths.
        rank: components of each side (fewer where d is smaller).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 4)) * [9, 5, 1, 1]
        >>> round(subspace_overlap(PairMoments.from_blocks([(X, 3 * X)]), rank=2), 12)
        1.0

    References:
        Bjoerck and Golub 1973; Hu et al. 2022, arXiv 2106.09685, section 7.2 (the same overlap).
    """
    U, V = leading(moments.cov_xx(), rank), leading(moments.cov_yy(), rank)
    cosines = U.T @ V
    return float(np.einsum("ij,ij->", cosines, cosines) / U.shape[1])


def subspace_ceiling(half: PairMoments, other: PairMoments, *, rank: int = RANK) -> float:
    """Return the overlap of the base model with itself, between two halves of the rows: what sampling allows.

    Args:
        half: moments of one half of the rows.
        other: moments of the other half.
        rank: components of each side.
    """
    cosines = leading(half.cov_xx(), rank).T @ leading(other.cov_xx(), rank)
    return float(np.einsum("ij,ij->", cosines, cosines) / cosines.shape[0])


def leading(covariance: np.ndarray, rank: int) -> np.ndarray:
    """Return the `rank` leading eigenvectors [d, rank] of a covariance [d, d]."""
    d = len(covariance)
    rank = min(rank, d)
    return scipy.linalg.eigh(covariance, subset_by_index=(d - rank, d - 1))[1]
