"""Ridge fits of one model and layer in every fold, for several label vectors at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from taxlens.probes.kinds.ridge import FoldMoments, RidgeSpectrum, left_out_reading, left_out_residuals
from taxlens.probes.rows.folds import Folds

PENALTY_ROWS = 1024  # rows of the training part on which the penalty is chosen (whole groups, seeded)


class RidgeFits:
    """Ridge probes of one model at one layer: a fit a fold, every label vector from one eigendecomposition.

    The penalty of each label and fold is the one whose leave-group-out squared error inside the training
    part is smallest (on whole groups up to 1,024 rows where there are more); test rows play no part.

    Args:
        X: [n, d] rows of the model.
        targets: one [n, q] array a label vector (the label first, then its controls).
        folds: of the rows.
        penalties: relative penalties to choose from.
        seed: of the groups on which the penalty is chosen; the same for both models of a pair.
    """

    name = "ridge"
    linear = True

    def __init__(
        self,
        X: np.ndarray,
        targets: Sequence[np.ndarray],
        folds: Folds,
        *,
        penalties: Sequence[float],
        seed: int,
    ) -> None:
        self.X, self.folds, self.seed = X, folds, seed
        self.targets = np.hstack(list(targets))
        edges = np.cumsum([0, *(t.shape[1] for t in targets)])
        self.blocks = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
        self.penalties = np.asarray(penalties, dtype=np.float64)
        smallest = len(X) - np.bincount(folds.of_row).max()
        self.moments = (
            FoldMoments.from_rows(X, self.targets, folds.of_row, folds.n_folds) if smallest > X.shape[1] else None
        )
        self.penalty = np.zeros((folds.n_folds, len(self.blocks)))
        self.spectra: list[RidgeSpectrum] = []
        self.coefficients = np.zeros((folds.n_folds, self.targets.shape[1], X.shape[1]))
        self.intercepts = np.zeros((folds.n_folds, self.targets.shape[1]))
        self._samples: list[tuple[np.ndarray, np.ndarray]] = []
        for fold, (train, _) in enumerate(folds):
            self._fit(fold, train)

    def _fit(self, fold: int, train: np.ndarray) -> None:
        spectrum = self._spectrum([f for f in range(self.folds.n_folds) if f != fold])
        sample = whole_groups(self.folds.groups, train, most=PENALTY_ROWS, seed=self.seed)
        Z = spectrum.project(self.X[sample])
        residual = left_out_residuals(
            spectrum, Z, self.targets[sample], self.folds.groups[sample], penalties=self.penalties
        )
        error = np.stack([(residual[:, :, block] ** 2).mean((1, 2)) for block in self.blocks], axis=1)
        self.penalty[fold] = self.penalties[error.argmin(0)]
        self.coefficients[fold], self.intercepts[fold] = spectrum.coefficients(self._by_column(self.penalty[fold]))
        self.spectra.append(spectrum)
        self._samples.append((sample, Z))

    def _by_column(self, by_block: np.ndarray) -> np.ndarray:
        return np.repeat(by_block, [block.stop - block.start for block in self.blocks])

    def _spectrum(self, kept: Sequence[int]) -> RidgeSpectrum:
        rows = np.flatnonzero(np.isin(self.folds.of_row, kept))
        if self.moments is not None and len(rows) > self.X.shape[1]:
            return self.moments.training(kept)
        return RidgeSpectrum.from_rows(self.X[rows], self.targets[rows])

    def read(self, fold: int, X: np.ndarray) -> np.ndarray:
        """Return [k, q] scores of rows X [k, d] (of either model) by the probes of a fold."""
        return X @ self.coefficients[fold].T + self.intercepts[fold]

    def held_out(self, fold: int, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return training rows of a fold and their scores [k, q] of the label, each read without its group.

        Args:
            fold: whose training part.
            X: [n, d] all rows of the model to read (this one's or the other's).
        """
        sample, Z = self._samples[fold]
        spectrum, block = self.spectra[fold], self.blocks[0]
        read = Z if X is self.X else spectrum.project(X[sample])
        scores = left_out_reading(
            spectrum.columns(block),
            Z,
            self.targets[sample, block],
            self.folds.groups[sample],
            read=read,
            penalty=float(self.penalty[fold, 0]),
        )
        return sample, scores

    def typical_penalty(self) -> float:
        """Return the median over folds of the label's relative penalty."""
        return float(np.exp(np.median(np.log(self.penalty[:, 0]))))

    def whole(self, kept: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (coefficients [q, d], intercepts [q]) of the label fitted on all folds, or on those in `kept`."""
        folds = list(range(self.folds.n_folds) if kept is None else kept)
        if self.moments is not None and np.isin(self.folds.of_row, folds).sum() > self.X.shape[1] and self._varies:
            coefficients, intercepts = self.moments.solve(folds, penalty=self.typical_penalty())
            return coefficients[self.blocks[0]], intercepts[self.blocks[0]]
        spectrum = self._spectrum(folds).columns(self.blocks[0])
        return spectrum.coefficients(np.full(len(spectrum.target_mean), self.typical_penalty()))

    @property
    def _varies(self) -> bool:
        return all(len(spectrum.values) for spectrum in self.spectra)


def whole_groups(groups: np.ndarray, rows: np.ndarray, *, most: int, seed: int, fewest: int = 8) -> np.ndarray:
    """Return those of `rows` whose groups come first in a seeded order, until `most` rows and `fewest` groups.

    Args:
        groups: [n] group codes of all rows.
        rows: row indices to choose from (groups whole).
        most: rows to stop at.
        seed: of the order.
        fewest: groups to take even if that is more rows.
    """
    if len(rows) <= most:
        return rows
    codes, size = np.unique(groups[rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(codes))
    count = max(int(np.searchsorted(np.cumsum(size[order]), most)) + 1, min(fewest, len(codes)))
    return rows[np.isin(groups[rows], codes[order[:count]])]
