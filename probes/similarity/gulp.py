"""The largest disagreement of two spaces over all ridge tasks of bounded size."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from taxlens.probes.rows.moments import PairMoments

PENALTY = 1e-2


def gulp(moments: PairMoments, *, penalty: float = PENALTY) -> float:
    """Return the GULP distance: how far ridge predictions from the two spaces can differ, at least 0.

    The supremum over regression tasks of norm 1 of the root mean squared difference between the ridge
    predictions made from base and those made from aligned. 0 for a rotated, scaled, shifted copy; a metric
    for a fixed penalty. Invariant to rotation and translation, and here to isotropic scale, since each side
    is scaled to trace 1. A small penalty compares as CCA does, a large one as CKA does. Biased upwards for
    n < d / penalty.

        d^2 = tr(P_x A P_x A) + tr(P_y B P_y B) - 2 tr(P_x C P_y C'),   P_x = (A + penalty)^-1

    Args:
        moments: of the paired rows.
        penalty: added to the covariance of trace 1.

    References:
        Boix-Adsera et al. 2022, arXiv 2210.06545, eq. 4 (plug-in estimate).
    """
    A, B, C = moments.cov_xx(), moments.cov_yy(), moments.cov_xy()
    size_x, size_y = np.trace(A), np.trace(B)
    A, B, C = A / size_x, B / size_y, C / np.sqrt(size_x * size_y)
    A_ridge, B_ridge = A + penalty * np.eye(len(A)), B + penalty * np.eye(len(B))
    hat_x = scipy.linalg.solve(A_ridge, A, assume_a="pos")
    hat_y = scipy.linalg.solve(B_ridge, B, assume_a="pos")
    cross = np.einsum(
        "ij,ij->",
        scipy.linalg.solve(A_ridge, C, assume_a="pos"),
        scipy.linalg.solve(B_ridge, C.T, assume_a="pos").T,
    )
    squared = np.einsum("ij,ji->", hat_x, hat_x) + np.einsum("ij,ji->", hat_y, hat_y) - 2 * cross
    return float(np.sqrt(max(squared, 0.0)))
