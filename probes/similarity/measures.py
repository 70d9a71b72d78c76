"""The measures by name: what each is computed from, its range, and what stands for chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from taxlens.probes.rows.heldout import HeldOut
from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity import cca, cka, drift, gulp, knn, procrustes, regression, rsa, subspace
from taxlens.probes.similarity.accumulation import Gathered, merge_all

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Measure:
    """How a named measure is computed from what was gathered.

    Args:
        name: as written in tables.
        kind: "moments" (a function of moments), "heldout" (fitted on all folds but one, scored on it),
            "drift" (row-wise sums) or "rows" (a sample of rows).
        function: from moments to a number; from folds and their total to `HeldOut`; from drift sums [6]
            to a number; from rows X, Y to per-row values [n] or to a number.
        low: lower end of the range.
        high: upper end of the range.
        same_width: whether base and aligned rows must have equal width.
        null: what the null column holds: "permuted" rows, or the stated value ("none": not defined).
    """

    name: str
    kind: Literal["moments", "heldout", "drift", "rows"]
    function: Callable
    low: float
    high: float
    same_width: bool = False
    null: Literal["permuted", "chance", "none"] = "permuted"


def _energy(summary: Callable[[np.ndarray], float]) -> Callable:
    return lambda moments: summary(drift.difference_energy(moments))


def _linear_r2_back(folds: Sequence[PairMoments], total: PairMoments) -> HeldOut:
    return regression.heldout_r2(folds, total, back=True)


def _shared(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    k = min(knn.K, len(X) - 1)
    return knn.shared_neighbours(knn.neighbours(X, k=k), knn.neighbours(Y, k=k)) - k / (len(X) - 1)


_ALL = (
    Measure("cka", "moments", cka.cka, -1, 1),
    Measure("procrustes", "heldout", procrustes.heldout_rotation, -1, 1),
    Measure("linear_r2", "heldout", regression.heldout_r2, -np.inf, 1),
    Measure("linear_r2_back", "heldout", _linear_r2_back, -np.inf, 1),
    Measure("drift", "drift", drift.relative_norm, 0, np.inf, same_width=True),
    Measure("drift_cosine", "drift", drift.mean_cosine, -1, 1, same_width=True),
    Measure("drift_shift", "moments", drift.shift_share, 0, 1, same_width=True, null="none"),
    Measure("drift_rank", "moments", _energy(drift.effective_rank), 0, np.inf, same_width=True),
    Measure("drift_top1", "moments", _energy(lambda e: drift.top_share(e, 1)), 0, 1, same_width=True),
    Measure("drift_top10", "moments", _energy(lambda e: drift.top_share(e, 10)), 0, 1, same_width=True),
    Measure("subspace", "moments", subspace.subspace_overlap, 0, 1, same_width=True, null="chance"),
    Measure("mutual_knn", "rows", _shared, -1, 1),
    Measure("svcca", "moments", cca.svcca, 0, 1),
    Measure("cka_biased", "moments", cka.cka_biased, 0, 1),
    Measure("procrustes_cosine", "moments", procrustes.procrustes_cosine, 0, 1),
    Measure("angular", "moments", procrustes.angular_distance, 0, np.pi / 2),
    Measure("cca", "moments", cca.cca, 0, 1),
    Measure("pwcca", "moments", cca.pwcca, 0, 1),
    Measure("gulp", "moments", gulp.gulp, 0, np.inf),
    Measure("rsa", "rows", rsa.rsa, -1, 1),
)
MEASURES = {measure.name: measure for measure in _ALL}
DRIFT = tuple(name for name in MEASURES if name.startswith("drift"))


def chance_of(measure: Measure, gathered: Gathered) -> float:
    """Return the stated chance value of a measure whose null is no permutation (subspace: rank / d)."""
    if measure.null != "chance":
        return NAN
    d = gathered.widths[0]
    return min(subspace.RANK, d) / d


def ceiling_of(measure: Measure, gathered: Gathered) -> float:
    """Return what the base model reads against itself on two halves of the rows, where that is below 1.

    Only for measures that compare spaces and not rows (subspace); for the others base against itself on
    the same rows is 1 (or 0) exactly, and the ceiling is NaN.
    """
    if measure.name != "subspace" or len(gathered.folds) < 2:
        return NAN
    halves = [gathered.folds[part::2] for part in (0, 1)]
    first, second = (merge_all(half) for half in halves)
    return subspace.subspace_ceiling(first, second)
