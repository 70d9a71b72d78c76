"""How much of one space is linear in the other, on rows that the fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from taxlens.probes.rows.heldout import HeldOut, left_out
from taxlens.probes.rows.moments import PairMoments

PENALTY = 1e-4


def ridge_map(moments: PairMoments, *, penalty: float = PENALTY) -> np.ndarray:
    """Return the ridge map W [d_x, d_y] from centred base rows to centred aligned rows.

    W = (A + penalty * mean eigenvalue of A)^-1 C. The penalty is relative, so W does not depend on the
    scale of the rows.

    Args:
        moments: of the fitting rows.
        penalty: in units of the mean eigenvalue of the base covariance.
    """
    A = moments.cov_xx()
    A[np.diag_indices_from(A)] += penalty * np.trace(A) / len(A)
    return scipy.linalg.solve(A, moments.cov_xy(), assume_a="pos", overwrite_a=True)


def heldout_r2(
    folds: Sequence[PairMoments], total: PairMoments, *, penalty: float = PENALTY, back: bool = False
) -> HeldOut:
    """Return the share of aligned variance that a linear map of base rows predicts on unseen rows.

    At most 1 (every aligned direction is linear in base), 0 for no better than the mean, below 0 where
    the map is fitted on noise (n/d small). Not symmetric: `back` asks how much of base is linear in
    aligned, which is what a loss of information lowers. Invariant to rotation, isotropic scale and
    translation of either side; to an invertible linear map of the predictor only as the penalty goes to
    0. Weighted by variance: a lost concept of 1 % variance costs at most .01.

        1 - sum_k |Y_k - predicted_k|^2 / sum_k |Y_k - mean of the fitting rows|^2

    Args:
        folds: moments of disjoint folds of whole groups, at least 2.
        total: moments of all of them.
        penalty: in units of the predictor's mean eigenvalue.
        back: predict base from aligned instead.

    References:
        Kornblith et al. 2019, arXiv 1905.00414, section 3 (in-sample linear regression R^2).
    """
    parts = []
    for rest, unseen in left_out(folds, total):
        if back:
            rest, unseen = rest.swapped(), [fold.swapped() for fold in unseen]
        W = ridge_map(rest, penalty=penalty)
        for test in unseen:
            around_mean = np.trace(test.yy)
            explained = 2 * np.einsum("ij,ij->", W, test.xy) - np.einsum("ij,ij->", W, test.xx @ W)
            parts.append((around_mean - explained, around_mean))
    return HeldOut(np.array(parts), _r2)


def _r2(sums: np.ndarray) -> float:
    return float(1 - sums[0] / sums[1])
