"""Centred kernel alignment with the linear kernel, from moments: debiased, and as first published."""

from __future__ import annotations

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.rows.moments import PairMoments


def cka(moments: PairMoments) -> float:
    """Return the debiased linear CKA of a pair: 1 for a rotated copy, 0 on average for independent rows.

    Ratio of unbiased estimates of HSIC. At most 1; a little below 0 is possible and means 0. Invariant to
    rotation and reflection, isotropic scale and translation of either side; not to a general linear map.
    Weighted by variance: erasing a concept that holds 1 % of the variance leaves it above .999, and it
    cannot see a rotation, so a high value is no sign that a capability is intact. A few rows of very large
    norm can set it alone: read it beside the value without them.

        CKA = h(x, y) / sqrt(h(x, x) h(y, y)),    h = U-statistic of HSIC

    Args:
        moments: of the paired rows; costs O(d_x d_y) once they are there, no Gram matrix.

    Raises:
        UsageError: fewer than 4 rows, or so few that the unbiased self-similarity is not positive.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 3))
        >>> Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        >>> round(cka(PairMoments.from_blocks([(X, 5 * X @ Q + 1)])), 12)
        1.0

    References:
        Kornblith et al. 2019, arXiv 1905.00414 (CKA); Song et al. 2012, JMLR 13, eq. 5 (unbiased HSIC);
        Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327 (debiased CKA).
    """
    m = moments
    if m.n < 4:
        rows = [("rows", m.n), ("expected", "at least 4: the unbiased estimate divides by n - 3")]
        raise UsageError(explain("too few rows for debiased CKA.", rows))
    hsic_xx, hsic_yy = hsic(m.n, m.xx, m.sum_x, m.q_xx, m.u_xx), hsic(m.n, m.yy, m.sum_y, m.q_yy, m.u_yy)
    if not (hsic_xx > 0 and hsic_yy > 0):
        rows = [("rows", m.n), ("unbiased HSIC with itself", f"base {hsic_xx:.3g}, aligned {hsic_yy:.3g}")]
        fix = "more rows, or cka_biased (which is inflated by small n)."
        raise UsageError(explain("debiased CKA is undefined for these rows.", rows, fix))
    sides = (m.sum_y, m.q_x, m.q_y, m.u_yx)
    return float(hsic(m.n, m.xy, m.sum_x, m.q_xy, m.u_xy, other=sides) / np.sqrt(hsic_xx * hsic_yy))


def hsic(
    n: int,
    xy: np.ndarray,
    sum_x: np.ndarray,
    q_xy: float,
    u_xy: np.ndarray,
    *,
    other: tuple[np.ndarray, float, float, np.ndarray] | None = None,
) -> float:
    """Return the unbiased HSIC (linear kernel) from raw sums over n rows, at any shift.

    Args:
        n: rows, at least 4.
        xy: sum x y' [d_x, d_y].
        sum_x: sum x [d_x].
        q_xy: sum |x|^2 |y|^2.
        u_xy: sum x |y|^2 [d_x].
        other: (sum y [d_y], sum |x|^2, sum |y|^2, sum y |x|^2 [d_y]); of x itself if left out.

    References:
        Song et al. 2012, JMLR 13, eq. 5.
    """
    sum_y, q_x, q_y, u_yx = other if other is not None else (sum_x, np.trace(xy), np.trace(xy), u_xy)
    trace = np.einsum("ij,ij->", xy, xy) - q_xy
    ones = (sum_x @ sum_x - q_x) * (sum_y @ sum_y - q_y) / ((n - 1) * (n - 2))
    mixed = sum_x @ xy @ sum_y - sum_x @ u_xy - sum_y @ u_yx + q_xy
    return float((trace + ones - 2 / (n - 2) * mixed) / (n * (n - 3)))


def cka_biased(moments: PairMoments) -> float:
    """Return linear CKA as first published, in [0, 1]: inflated by small n, near 1 for n << d.

    For independent rows it reads about tr(A) tr(B) / (n |A| |B|), not 0. Offered because much of the
    literature quotes it; prefer `cka`.

        CKA = |C|^2 / (|A| |B|),    C, A, B the centred covariances, Frobenius norms

    Args:
        moments: of the paired rows.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(cka_biased(PairMoments.from_blocks([(X, 2 * X)])), 12)
        1.0

    References:
        Kornblith et al. 2019, arXiv 1905.00414, eq. 3.
    """
    xy, xx, yy = moments.cov_xy(), moments.cov_xx(), moments.cov_yy()
    return float(np.einsum("ij,ij->", xy, xy) / (np.linalg.norm(xx) * np.linalg.norm(yy)))
