"""Moments of a pair in one pass: everything that probes and similarity need, exact, mergeable, small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain

Array = Any  # numpy array or torch tensor: only operations that both have are used

_SUMS = (
    "sum_x",
    "sum_y",
    "xx",
    "yy",
    "xy",
    "q_x",
    "q_y",
    "q_xx",
    "q_yy",
    "q_xy",
    "u_xx",
    "u_yy",
    "u_xy",
    "u_yx",
)


class PairMoments:
    """Sums over paired rows X (base) and Y (aligned), accumulated in float64 from a fixed shift.

    The shift is the mean of the first block unless given, so that large means cost no digits. With
    x and y the shifted rows, the fields are

    ========= ============== =============================================
    field     shape          sum over rows of
    ========= ============== =============================================
    sum_x     [..., d_x]     x
    xx        [..., d_x,d_x] x x'
    xy        [..., d_x,d_y] x y'
    q_x       [...]          \\|x\\|^2
    q_xx      [...]          \\|x\\|^4
    q_xy      [...]          \\|x\\|^2 \\|y\\|^2
    u_xx      [..., d_x]     x \\|x\\|^2
    u_xy      [..., d_x]     x \\|y\\|^2
    u_yx      [..., d_y]     y \\|x\\|^2
    ========= ============== =============================================

    and the same with x and y exchanged (sum_y, yy, q_y, q_yy, u_yy). Leading axes (layers) are batched.
    Rows may be numpy arrays or torch tensors; tensors stay on their device. The sums of a stream do not
    depend on its chunks, order or merges beyond rounding.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
        >>> moments = PairMoments.from_blocks([(X[:20], Y[:20]), (X[20:], Y[20:])])
        >>> bool(np.allclose(moments.cov_xy(), (X - X.mean(0)).T @ (Y - Y.mean(0)) / 50))
        True
    """

    __slots__ = ("n", "shift_x", "shift_y", *_SUMS)

    def __init__(self, shift: tuple[Array, Array] | None = None) -> None:
        self.n = 0
        self.shift_x, self.shift_y = shift if shift is not None else (None, None)
        for name in _SUMS:
            setattr(self, name, 0.0)

    @classmethod
    def from_blocks(
        cls, blocks: Iterable[tuple[Array, Array]], shift: tuple[Array, Array] | None = None
    ) -> PairMoments:
        """Return the moments of an iterable of (X [..., k, d_x], Y [..., k, d_y]) blocks.

        Args:
            blocks: pairs of blocks with the same rows; each is read once and let go.
            shift: (shift_x [..., d_x], shift_y [..., d_y]); the mean of the first block if left out.

        Raises:
            UsageError: if there is no row, if the rows of a block differ, or if a value is not finite.
        """
        moments = cls(shift)
        for X, Y in blocks:
            moments.update(X, Y)
        if moments.n == 0:
            raise UsageError(explain("no rows to take moments of.", [("blocks", "0 rows in all")]))
        return moments

    def update(self, X: Array, Y: Array) -> PairMoments:
        """Add a block of paired rows X [..., k, d_x] and Y [..., k, d_y], in place; return self.

        Raises:
            UsageError: if the rows of X and Y differ, widths changed, or a value is not finite.
        """
        X, Y = _float64(X), _float64(Y)
        if X.ndim < 2 or X.shape[:-1] != Y.shape[:-1]:
            rows = [("X", tuple(X.shape)), ("Y", tuple(Y.shape)), ("expected", "[..., rows, d], same rows")]
            raise UsageError(explain("a block of a pair needs the same rows in both models.", rows))
        if X.shape[-2] == 0:
            return self
        if self.shift_x is None:
            self.shift_x, self.shift_y = X.mean(-2), Y.mean(-2)
        if X.shape[-1] != self.shift_x.shape[-1] or Y.shape[-1] != self.shift_y.shape[-1]:
            rows = [
                ("got", f"X {tuple(X.shape)}, Y {tuple(Y.shape)}"),
                ("expected", f"d {self.shift_x.shape[-1]} and {self.shift_y.shape[-1]}"),
            ]
            raise UsageError(explain("the width of the rows changed between blocks.", rows))
        x, y = X - self.shift_x[..., None, :], Y - self.shift_y[..., None, :]
        norm_x, norm_y = _square_norms(x), _square_norms(y)
        total = float(norm_x.sum() + norm_y.sum())
        if not np.isfinite(total):
            finite = np.isfinite(np.asarray(_numpy(norm_x + norm_y))).reshape(-1, x.shape[-2]).all(0)
            bad = self.n + np.flatnonzero(~finite)
            rows = [("rows", ", ".join(map(str, bad[:5]))), ("bad rows in block", len(bad))]
            fix = "drop these rows, or capture again in float32 if float16 overflowed."
            raise UsageError(explain("activations hold NaN or infinite values.", rows, fix))
        self.n += x.shape[-2]
        xt, yt = x.swapaxes(-1, -2), y.swapaxes(-1, -2)
        weights = _columns(norm_x, norm_y)  # one product for every sum of rows that is weighted by norms
        by_x, by_y = xt @ weights, yt @ weights
        self.sum_x, self.sum_y = self.sum_x + by_x[..., 0], self.sum_y + by_y[..., 0]
        self.u_xx, self.u_xy = self.u_xx + by_x[..., 1], self.u_xy + by_x[..., 2]
        self.u_yx, self.u_yy = self.u_yx + by_y[..., 1], self.u_yy + by_y[..., 2]
        self.xx, self.yy, self.xy = self.xx + xt @ x, self.yy + yt @ y, self.xy + xt @ y
        self.q_x, self.q_y = self.q_x + norm_x.sum(-1), self.q_y + norm_y.sum(-1)
        self.q_xx, self.q_yy = self.q_xx + (norm_x * norm_x).sum(-1), self.q_yy + (norm_y * norm_y).sum(-1)
        self.q_xy = self.q_xy + (norm_x * norm_y).sum(-1)
        return self

    def merge(self, other: PairMoments) -> PairMoments:
        """Return the moments of the rows of both, from this one's shift."""
        if self.n == 0 or other.n == 0:
            return self if other.n == 0 else other
        same = other.shift_x is self.shift_x and other.shift_y is self.shift_y
        moved = other if same else other.shifted(self.shift_x, self.shift_y)
        merged = PairMoments((self.shift_x, self.shift_y))
        merged.n = self.n + other.n
        for name in _SUMS:
            setattr(merged, name, getattr(self, name) + getattr(moved, name))
        return merged

    def without(self, part: PairMoments) -> PairMoments:
        """Return the moments of the rows that are not in `part`, whose rows must be among this one's.

        Exact algebra, as `merge`: what a jackknife over folds needs. Subtraction leaves rounding of the
        size of the whole, so do not use it to remove rows that hold nearly all of the variance.

        Raises:
            UsageError: if `part` has as many rows as the whole, or more.
        """
        if part.n >= self.n:
            rows = [("rows in all", self.n), ("rows to leave out", part.n)]
            raise UsageError(explain("leaving these rows out leaves nothing.", rows))
        same = part.shift_x is self.shift_x and part.shift_y is self.shift_y
        moved = part if same else part.shifted(self.shift_x, self.shift_y)
        rest = PairMoments((self.shift_x, self.shift_y))
        rest.n = self.n - part.n
        for name in _SUMS:
            setattr(rest, name, getattr(self, name) - getattr(moved, name))
        return rest

    def shifted(self, shift_x: Array, shift_y: Array) -> PairMoments:
        """Return the same moments expressed from another shift (exact algebra, no rows needed)."""
        a, b = shift_x - self.shift_x, shift_y - self.shift_y
        new = PairMoments((shift_x, shift_y))
        n = new.n = self.n
        aa, bb = (a * a).sum(-1), (b * b).sum(-1)
        ax, by = (a * self.sum_x).sum(-1), (b * self.sum_y).sum(-1)
        xx_a, yy_b = _apply(self.xx, a), _apply(self.yy, b)
        xy_b, yx_a = _apply(self.xy, b), _apply(self.xy.swapaxes(-1, -2), a)
        new.sum_x, new.sum_y = self.sum_x - n * a, self.sum_y - n * b
        new.xx = self.xx - _outer(a, self.sum_x) - _outer(self.sum_x, a) + n * _outer(a, a)
        new.yy = self.yy - _outer(b, self.sum_y) - _outer(self.sum_y, b) + n * _outer(b, b)
        new.xy = self.xy - _outer(a, self.sum_y) - _outer(self.sum_x, b) + n * _outer(a, b)
        new.q_x, new.q_y = self.q_x - 2 * ax + n * aa, self.q_y - 2 * by + n * bb
        new.u_xx = self.u_xx - 2 * xx_a + _times(aa, self.sum_x) - _times(new.q_x, a)
        new.u_yy = self.u_yy - 2 * yy_b + _times(bb, self.sum_y) - _times(new.q_y, b)
        new.u_xy = self.u_xy - 2 * xy_b + _times(bb, self.sum_x) - _times(new.q_y, a)
        new.u_yx = self.u_yx - 2 * yx_a + _times(aa, self.sum_y) - _times(new.q_x, b)
        a_u, b_u = (a * self.u_xx).sum(-1), (b * self.u_yy).sum(-1)
        new.q_xx = self.q_xx + 4 * (a * xx_a).sum(-1) + n * aa**2 - 4 * a_u + 2 * aa * (self.q_x - 2 * ax)
        new.q_yy = self.q_yy + 4 * (b * yy_b).sum(-1) + n * bb**2 - 4 * b_u + 2 * bb * (self.q_y - 2 * by)
        new.q_xy = (
            self.q_xy - 2 * (b * self.u_yx).sum(-1) - 2 * (a * self.u_xy).sum(-1) + 4 * (a * xy_b).sum(-1)
            + bb * (self.q_x - 2 * ax) + aa * (self.q_y - 2 * by) + n * aa * bb
        )  # fmt: skip
        return new

    def centred(self) -> PairMoments:
        """Return the moments expressed from the rows' own means (sums become 0)."""
        return self.shifted(self.mean_x(), self.mean_y())

    def swapped(self) -> PairMoments:
        """Return the moments with base and aligned exchanged."""
        new = PairMoments((self.shift_y, self.shift_x))
        new.n = self.n
        exchange = str.maketrans("xy", "yx")
        for name in _SUMS:
            if name not in ("xy", "q_xy"):
                setattr(new, name.translate(exchange), getattr(self, name))
        new.q_xy, new.xy = self.q_xy, self.xy.swapaxes(-1, -2)
        return new

    def mean_x(self) -> Array:
        """Mean row of X, [..., d_x]."""
        return self.shift_x + self.sum_x / self.n

    def mean_y(self) -> Array:
        """Mean row of Y, [..., d_y]."""
        return self.shift_y + self.sum_y / self.n

    def cov_xx(self) -> Array:
        """Centred covariance of X over n (not n - 1), [..., d_x, d_x]."""
        return self.xx / self.n - _outer(self.sum_x, self.sum_x) / self.n**2

    def cov_yy(self) -> Array:
        """Centred covariance of Y over n, [..., d_y, d_y]."""
        return self.yy / self.n - _outer(self.sum_y, self.sum_y) / self.n**2

    def cov_xy(self) -> Array:
        """Centred cross-covariance of X and Y over n, [..., d_x, d_y]."""
        return self.xy / self.n - _outer(self.sum_x, self.sum_y) / self.n**2

    def numpy(self) -> PairMoments:
        """Return the moments as numpy arrays on the host."""
        new = PairMoments((_numpy(self.shift_x), _numpy(self.shift_y)))
        new.n = self.n
        for name in _SUMS:
            setattr(new, name, _numpy(getattr(self, name)))
        return new

    def __repr__(self) -> str:
        shape = None if self.shift_x is None else (tuple(self.shift_x.shape), tuple(self.shift_y.shape))
        return f"PairMoments(n={self.n}, d={shape})"


def _float64(value: Array) -> Array:
    return value.double() if hasattr(value, "double") else np.asarray(value, dtype=np.float64)


def _numpy(value: Array) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _square_norms(rows: Array) -> Array:
    return (rows * rows).sum(-1) if hasattr(rows, "detach") else np.einsum("...d,...d->...", rows, rows)


def _columns(first: Array, second: Array) -> Array:
    """Ones and two weights as columns [..., k, 3], in the library of the weights."""
    if hasattr(first, "detach"):
        import torch

        return torch.stack([torch.ones_like(first), first, second], dim=-1)
    return np.stack([np.ones_like(first), first, second], axis=-1)


def _apply(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]


def _outer(a: Array, b: Array) -> Array:
    return a[..., :, None] * b[..., None, :]


def _times(scalar: Array, vector: Array) -> Array:
    return scalar[..., None] * vector if getattr(scalar, "ndim", 0) else scalar * vector
