"""LEACE: the smallest change of rows after which no linear probe reads a label. Fit it on training rows only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxlens.probes.rows.moments import PairMoments


@dataclass(frozen=True, slots=True, eq=False)
class Leace:
    """An affine eraser: x - left (right (x - mean)).

    On the rows it was fitted on, every linear probe of the label is at chance, and no other affine map
    does that with a smaller mean squared change. Fitted on rows that are then tested it drives the AUC
    below chance: fit it inside each training part.

    Args:
        mean: [d] of the rows it was fitted on.
        left: [d, r]; right: [r, d].

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 400); X = rng.normal(size=(400, 5)) + y[:, None]
        >>> gone = Leace.fit(X, y[:, None].astype(float)).erase(X)
        >>> bool(np.allclose(gone[y == 1].mean(0), gone[y == 0].mean(0)))
        True

    References: Belrose et al. 2023, arXiv 2306.03819, theorem 4.3.
    """

    mean: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, targets: np.ndarray) -> Leace:
        """Return the eraser of targets [n, q] from rows X [n, d]."""
        return cls.from_moments(PairMoments.from_blocks([(X, targets)]))

    @classmethod
    def from_moments(cls, moments: PairMoments, *, tolerance: float = 1e-10) -> Leace:
        """Return the eraser from the moments of rows (x) and targets (y).

        Args:
            moments: of (rows, targets) blocks.
            tolerance: eigenvalues below this share of the largest count as zero.
        """
        values, vectors = np.linalg.eigh(moments.cov_xx())
        kept = values > max(values[-1], 0.0) * tolerance
        roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
        whitened = (vectors / roots).T @ moments.cov_xy()
        basis, strength, _ = np.linalg.svd(whitened, full_matrices=False)
        basis = basis[:, strength > max(strength[0], 1e-300) * 1e-8]
        return cls(np.asarray(moments.mean_x()), (vectors * roots) @ basis, basis.T @ (vectors / roots).T)

    def erase(self, X: np.ndarray) -> np.ndarray:
        """Return rows X [n, d] without the label's linear trace."""
        return X - ((X - self.mean) @ self.right.T) @ self.left.T
