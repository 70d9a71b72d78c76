"""Scores on rows that the fit has not seen, fold by fold, from moments alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taxlens.probes.moments import PairMoments


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


def leave_out(total: PairMoments, fold: PairMoments) -> tuple[PairMoments, PairMoments]:
    """Return the moments of all other rows, and the fold's about the means of those other rows."""
    rest = total.without(fold)
    return rest, fold.shifted(rest.mean_x(), rest.mean_y())
