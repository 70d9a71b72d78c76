"""The best rotation between two spaces, how well it carries unseen rows, and the shape distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxlens.probes.rows.heldout import HeldOut, left_out
from taxlens.probes.rows.moments import PairMoments


def orthogonal_map(cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the orthogonal R [d_x, d_y] with the largest tr(R' cross), and the singular values of cross [least d].

    The answer to orthogonal Procrustes for centred rows x, y with cross = x'y [d_x, d_y]; reflections are allowed.

    References:
        Schoenemann 1966, Psychometrika 31.
    """
    left, values, right = np.linalg.svd(cross, full_matrices=False)
    return left @ right, values


def rotation(moments: PairMoments) -> np.ndarray:
    """Return the orthogonal R [d_x, d_y] that carries centred base rows closest to centred aligned rows.

    Minimises sum |(y - mean) - (x - mean) R|^2 over R with orthonormal rows or columns; reflections are
    allowed. With fewer rows than dimensions R is determined only in the span of the rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Q = rng.normal(size=(50, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
        >>> bool(np.allclose(rotation(PairMoments.from_blocks([(X, X @ Q + 4)])), Q))
        True
    """
    return orthogonal_map(moments.cov_xy())[0]


def procrustes_cosine(moments: PairMoments) -> float:
    """Return the in-sample cosine after the best rotation, |C|_* / sqrt(tr A tr B), in [0, 1].

    1 for a rotated, scaled, shifted copy. Inflated by small n: independent rows with n << d read near 1,
    which is why `procrustes` scores rows that the rotation has not seen.
    """
    nuclear = np.linalg.svd(moments.cov_xy(), compute_uv=False).sum()
    size = np.sqrt(np.trace(moments.cov_xx()) * np.trace(moments.cov_yy()))
    return float(min(nuclear / size, 1.0))


def angular_distance(moments: PairMoments) -> float:
    """Return the angular shape distance in radians, [0, pi/2]: a metric on shapes.

    arccos of `procrustes_cosine`: 0 if and only if the rows are equal up to rotation, isotropic scale and
    translation, symmetric, and obeys the triangle inequality. Not invariant to a general linear map.
    Distances below about 1e-7 are rounding.

    References:
        Williams et al. 2021, arXiv 2110.14739, eq. 8 (there with a general partial whitening).
    """
    return float(np.arccos(procrustes_cosine(moments)))


def heldout_rotation(folds: Sequence[PairMoments], total: PairMoments) -> HeldOut:
    """Return how well a rotation carries the rows of folds that it was not fitted on.

    The value is the cosine between rotated base rows and aligned rows (all centred by the means of the
    fitting rows), pooled over folds: in [-1, 1], 1 for a rotated, scaled, shifted copy, 0 on average for
    independent rows at any n/d. Five singular value decompositions of a [d, d] matrix.

        sum_k tr(R_k' C_k) / sqrt(sum_k tr A_k  sum_k tr B_k)

    Args:
        folds: moments of disjoint folds of whole groups, at least 2.
        total: moments of all of them.
    """
    parts = []
    for rest, unseen in left_out(folds, total):
        R = rotation(rest)
        parts += [(np.einsum("ij,ij->", R, m.xy), np.trace(m.xx), np.trace(m.yy)) for m in unseen]
    return HeldOut(np.array(parts), _cosine)


def _cosine(sums: np.ndarray) -> float:
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))
