"""How far the aligned rows moved from the base rows, in the basis that a fine-tune shares with its base."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from taxlens.probes.rows.moments import PairMoments

_COLUMNS = ("n", "cosine", "moved", "size", "cosine_null", "moved_null")


class DriftSums:
    """Row-wise sums behind drift, by fold and by token position; exact zero where nothing moved.

    Args:
        folds: number of folds.
    """

    __slots__ = ("by_fold", "by_position")

    def __init__(self, folds: int) -> None:
        self.by_fold = np.zeros((folds, len(_COLUMNS)))
        self.by_position: dict[int, np.ndarray] = {}

    def update(
        self,
        X: np.ndarray,
        Y: np.ndarray,
        fold: np.ndarray,
        Y_null: np.ndarray,
        positions: np.ndarray | None = None,
    ) -> None:
        """Add rows X, Y [k, d] with their folds [k], unrelated aligned rows [k, d] and positions [k]."""
        if X.shape[1] != Y.shape[1]:
            return
        size = np.einsum("nd,nd->n", X, X)
        rows = np.stack(
            [
                np.ones(len(X)),
                _cosine(X, Y),
                ((Y - X) ** 2).sum(1),
                size,
                _cosine(X, Y_null),
                ((Y_null - X) ** 2).sum(1),
            ],
            axis=1,
        )
        np.add.at(self.by_fold, fold, rows)
        if positions is not None:
            for place in np.unique(positions):
                before = self.by_position.get(int(place), 0.0)
                self.by_position[int(place)] = before + rows[positions == place].sum(0)

    def parts(self) -> np.ndarray:
        """Return the sums by fold [folds, (n, cosine, moved, size, cosine_null, moved_null)]."""
        return self.by_fold[self.by_fold[:, 0] > 0]


@dataclass(frozen=True, slots=True)
class PositionDrift:
    """Drift at one token position."""

    position: int
    cosine: float
    relative_norm: float
    n: int


def mean_cosine(sums: np.ndarray) -> float:
    """Return the mean over rows of cos(x_base, x_aligned), in [-1, 1]; 1 where nothing turned.

    Not centred: where all rows share a large mean, unrelated rows have high cosines too (the null says
    how high), so read it against its null. Invariant to a rotation of both models, not of one.

    Args:
        sums: [6] sums of `DriftSums.parts` over folds.
    """
    return float(sums[1] / sums[0])


def relative_norm(sums: np.ndarray) -> float:
    """Return sqrt(sum |x_aligned - x_base|^2 / sum |x_base|^2): 0 where nothing moved, no upper bound.

    Dominated by the rows of largest norm; see the value without the top .1 % of norms.

    Args:
        sums: [6] sums of `DriftSums.parts` over folds.
    """
    return float(np.sqrt(sums[2] / sums[3])) if sums[3] > 0 else float("nan")


def difference_moment(moments: PairMoments) -> np.ndarray:
    """Return the second moment E[(y - x)(y - x)'] [d, d], not centred: a constant shift counts as movement."""
    d = moments.mean_y() - moments.mean_x()
    return difference_covariance(moments) + np.outer(d, d)


def difference_covariance(moments: PairMoments) -> np.ndarray:
    """Return the covariance of y - x [d, d]: movement that differs between rows."""
    cross = moments.cov_xy()
    return moments.cov_xx() + moments.cov_yy() - cross - cross.T


def difference_energy(moments: PairMoments) -> np.ndarray:
    """Return the energies [d] of the movement y - x along its own directions, largest first.

    From the moments: differences below about 1e-7 of the activations' own size are rounding, and read 0.
    """
    return _energy(moments, int(moments.n))


@lru_cache(maxsize=4)
def _energy(moments: PairMoments, n: int) -> np.ndarray:
    """Several measures read one spectrum; the rows so far are part of the key, because moments grow in place."""
    return _above_rounding(np.linalg.eigvalsh(difference_moment(moments)), moments)[::-1]


def _above_rounding(energy: np.ndarray, moments: PairMoments) -> np.ndarray:
    size = np.trace(moments.cov_xx()) + np.trace(moments.cov_yy())
    mean = moments.mean_x() @ moments.mean_x() + moments.mean_y() @ moments.mean_y()
    return np.where(energy > 1e-14 * size + 1e-28 * mean, energy, 0.0)


def effective_rank(energy: np.ndarray) -> float:
    """Return exp(entropy) of energies [d] scaled to sum 1: in [1, d]; 0 where there is no energy.

    Of a rank-one movement it is 1, of an isotropic one d. A constant shift of all rows is rank one.

    References:
        Roy and Vetterli 2007, "The effective rank", EUSIPCO (there of singular values; here of energies).
    """
    share = energy[energy > 0]
    if not len(share):
        return 0.0
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def top_share(energy: np.ndarray, k: int) -> float:
    """Return the share of the movement's energy in its k leading directions, in [0, 1]; 0 without movement."""
    total = energy.sum()
    return float(np.sort(energy)[::-1][:k].sum() / total) if total > 0 else 0.0


def shift_share(moments: PairMoments) -> float:
    """Return the share of the movement's energy that is one constant shift of all rows, in [0, 1]."""
    d = moments.mean_y() - moments.mean_x()
    energy = np.trace(difference_moment(moments))
    return float(min(d @ d / energy, 1.0)) if d.any() and energy > 0 else 0.0


def drift_by_position(sums: DriftSums) -> tuple[PositionDrift, ...]:
    """Return the drift at each token position that was gathered, in order of position."""
    return tuple(
        PositionDrift(place, mean_cosine(row), relative_norm(row), int(row[0]))
        for place, row in sorted(sums.by_position.items())
    )


def _cosine(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows; 1 where both rows are zero, 0 where one is."""
    norms = np.linalg.norm(X, axis=1) * np.linalg.norm(Y, axis=1)
    dots = np.einsum("nd,nd->n", X, Y)
    both_zero = ~X.any(axis=1) & ~Y.any(axis=1)
    return np.where(norms > 0, np.clip(dots / np.where(norms > 0, norms, 1.0), -1, 1), both_zero)
