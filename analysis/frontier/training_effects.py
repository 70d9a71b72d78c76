"""From a path attribution of the training half to what each unit costs of the taxes and brings of the benefit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxlens.analysis.frontier.front import Benefit
from taxlens.analysis.frontier.frontier_tables import FRONTIER_STABILITY
from taxlens.analysis.frontier.plans import Plan, Scores, Units, best_coefficients, wanted_count
from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.intervals import group_weights

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.frontier.effects_cache import KeptEffects
    from taxlens.analysis.path.attribution import Attribution


class TrainEffects:
    """Effects of the changed units on the training items, whatever run they were attributed in.

    Args:
        attributions: path attributions that hold the training items of every suite named.
        suites: the training halves.
        units: the units that plans choose from.
        local: the same items' effects by one gradient at the aligned weights, for a second look at the benefit.
    """

    def __init__(
        self, attributions: Sequence[Attribution | KeptEffects], suites: Sequence[Suite], units: Units,
        *, local: TrainEffects | None = None,
    ) -> None:  # fmt: skip
        self.units, self.local = units, local
        self.suites = {suite.name: suite for suite in suites}
        self._found = {name: found for one in attributions for name, found in one.suites.items()}
        missing = [name for name in self.suites if name not in self._found]
        if missing:
            rows = [("missing", ", ".join(missing)), ("attributed", ", ".join(self._found) or "none")]
            raise UsageError(explain("a suite was not attributed.", rows, "attribute it at the frontier's unit level."))

    def effects(self, suite: str, metric: str) -> np.ndarray:
        """Effect of each unit on each training item, float64 [items, units]."""
        found = self._found[suite]
        if (metric, self.units.level) not in found.values:
            rows = [("has", ", ".join(f"{m} by {level}" for m, level in found.values))]
            fix = f"attribute {metric} at level {self.units.level}."
            raise UsageError(explain(f"{suite} was not attributed in {metric} by {self.units.level}.", rows, fix))
        names = {name: i for i, name in enumerate(found.units[self.units.level])}
        columns = [names[name] for name in self.units.names]
        return found.values[metric, self.units.level][np.ix_(self._rows(suite), columns)]

    def tax(self, suite: str, metric: str) -> np.ndarray:
        """Tax of each training item in the prompt that plans are measured in, float64 [items]."""
        return self._found[suite].by_weights(metric)[self._rows(suite)]

    def groups(self, suite: str) -> np.ndarray:
        """Group of each training item."""
        return self.suites[suite].groups

    def scores(
        self, taxed: Sequence[str], benefit: Benefit, *, metric: str, weights: Mapping[str, np.ndarray] | None = None
    ) -> Scores:
        """Mean effects by unit, items weighted where a bootstrap draw says how often each counts."""

        def mean(suite: str, values: np.ndarray) -> np.ndarray:
            return np.average(values, axis=0, weights=None if weights is None else weights[suite])

        def brought(effects: TrainEffects) -> np.ndarray:
            # effects are losses from base to aligned: what alignment brought is minus that
            each = [-benefit.signs[suite] * mean(suite, effects.effects(suite, "margin")) for suite in benefit.suites]
            return np.sum(each, axis=0)

        by_suite = {suite: mean(suite, self.effects(suite, metric)) for suite in taxed}
        total = -sum(benefit.signs[suite] * float(mean(suite, self.tax(suite, "margin"))) for suite in benefit.suites)
        local = None if self.local is None else brought(self.local)
        harm, sign = benefit.suite, benefit.signs[benefit.suite]
        alone = [None if e is None else -sign * mean(harm, e.effects(harm, "margin")) for e in (self, self.local)]
        return Scores(
            np.sum(list(by_suite.values()), axis=0), brought(self), total, by_suite, local, harm=alone[0],
            harm_total=-sign * float(mean(harm, self.tax(harm, "margin"))), harm_local=alone[1],
        )  # fmt: skip

    def predicted(self, plan: Plan, suites: Sequence[str], metrics: Sequence[str]) -> dict[tuple[str, str], float]:
        """Loss that undoing a plan's units is predicted to take back, by (suite, metric) that was attributed."""
        coefficients = self._coefficients(plan)
        return {
            (suite, metric): float(self.effects(suite, metric).mean(axis=0) @ coefficients)
            for suite in suites
            for metric in metrics
            if (metric, self.units.level) in self._found[suite].values
        }

    def predicted_benefit(self, plan: Plan, scores: Scores) -> tuple[float, float, float]:
        """Share of the benefit that a plan is predicted to keep: the mean of what path and last gradient say, and both.

        What a plan keeps lies between the two as a rule (docs/frontier.md): the path's effects average over all of
        the change, the gradient sees its end alone.
        """
        if scores.benefit_total == 0:
            return (float("nan"),) * 3
        kept = [1 - float(b @ self._coefficients(plan)) / scores.benefit_total for b in scores.benefits]
        return float(np.mean(kept)), min(kept), max(kept)

    def stability(
        self, plan: Plan, taxed: Sequence[str], benefit: Benefit, *, metric: str, share: float,
        keep: float | None, draws: int = 20, seed: int = 0,
    ) -> dict[str, float]:  # fmt: skip
        """How alike the chosen set is when the training groups are drawn again: Jaccard overlap, mean and extremes."""
        suites = [*taxed, *benefit.suites]
        drawn = {s: group_weights(self.groups(s), draws=draws, seed=seed + i) for i, s in enumerate(suites)}
        chosen = set(plan.undo)
        overlaps = []
        for draw in range(draws):
            weights = {suite: drawn[suite][draw] for suite in suites}
            scores = self.scores(taxed, benefit, metric=metric, weights=weights)
            again = best_coefficients(scores, count=wanted_count(self.units, share), keep=keep)
            names = {self.units.names[i] for i in np.flatnonzero(again)}
            overlaps.append(len(names & chosen) / max(1, len(names | chosen)))
        return {"jaccard": float(np.mean(overlaps)), "low": float(np.min(overlaps)), "high": float(np.max(overlaps))}

    def _coefficients(self, plan: Plan) -> np.ndarray:
        return np.array([plan.undo.get(name, 0.0) for name in self.units.names])

    def _rows(self, suite: str) -> list[int]:
        places = {item: i for i, item in enumerate(self._found[suite].items)}
        wanted = [item.id for item in self.suites[suite].items]
        lost = [name for name in wanted if name not in places]
        if lost:
            rows = [("suite", suite), ("items", f"{len(lost)} of {len(wanted)}, first {lost[0]!r}")]
            raise UsageError(explain("training items were not attributed.", rows, "attribution: {items: all}"))
        return [places[name] for name in wanted]


def stability_frame(plans: Sequence[Plan], found: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """One row a plan: columns plan, jaccard, low, high."""
    return FRONTIER_STABILITY.frame({"plan": plan.name, **one} for plan, one in zip(plans, found, strict=True))
