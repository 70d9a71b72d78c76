"""Scores on rows that the fit has not seen, fold by fold, from moments alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from taxlens.probes.rows.moments import PairMoments

FITS = 5


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Sums by held-out fold, and the score that their total makes.

    Args:
        parts: [folds, sums] additive parts of the score on each held-out fold.
        score: from summed parts [sums] to the number.
    """

    parts: np.ndarray
    score: Callable[[np.ndarray], float]

    @property
    def value(self) -> float:
        """Score pooled over all held-out rows."""
        return self.score(self.parts.sum(0))

    @property
    def left_out(self) -> np.ndarray:
        """Score with each fold's rows left out of the pool, [folds] (the fits are kept)."""
        return np.array([self.score(self.parts.sum(0) - part) for part in self.parts])


def left_out(folds: Sequence[PairMoments], total: PairMoments) -> Iterator[tuple[PairMoments, list[PairMoments]]]:
    """Yield, for each of at most five fits, the moments to fit on and the folds that it has not seen.

    Ten folds take five fits, two folds unseen by each: every fold is scored once, on its own. The unseen
    folds' moments are about the means of the rows that are fitted on.

    Args:
        folds: moments of disjoint folds of whole groups, at least 2.
        total: moments of all of them.
    """
    fits = min(FITS, len(folds))
    for fit in range(fits):
        unseen = folds[fit::fits]
        rest = total
        for fold in unseen:
            rest = rest.without(fold)
        yield rest, [fold.shifted(rest.mean_x(), rest.mean_y()) for fold in unseen]
