"""What alignment costs beside right answers: refusals, length, time, variety."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Suite
from taxlens.analysis.answers.answer_tables import COSTS
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.answers.refusal_rates import JudgeError, judge_error, rate_intervals, refuses
from taxlens.analysis.answers.refusals import Judge
from taxlens.core.result import Result
from taxlens.core.stats.intervals import group_counts, ratio_interval, sum_intervals
from taxlens.core.stats.tails import ends, welch_tail


@dataclass(frozen=True, slots=True, repr=False)
class Costs(Result):
    """Measures of both models and their change (aligned minus base), with intervals. Costs add up by ``+``.

    Attributes:
        frame: one row a suite, template and measure, with the columns of `COSTS`.
    """

    figure: ClassVar[str] = "costs"

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row a suite, template and measure."""
        return self.frame.copy()

    def __add__(self, other: Costs) -> Costs:
        return Costs(pd.concat([self.frame, other.frame], ignore_index=True))

    def __repr__(self) -> str:
        parts = (
            f"{r.suite} ({r.template}) {r.measure} {r.base:.3g} -> {r.aligned:.3g}, change {r.change:+.3g} "
            f"[{r.low:.3g}, {r.high:.3g}], n={r.n_items} items in {r.n_groups} groups"
            for r in self.frame.itertuples()
        )
        return "Costs: " + "; ".join(parts)


def costs_of(
    suite: Suite,
    template: str,
    measures: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Costs:
    """Costs from measures by item.

    Args:
        suite: the items, in order.
        template: what they were asked in.
        measures: (name, base [n], aligned [n]).
        bootstrap: draws of the group bootstrap.
        seed: of the draws.
    """
    rows = []
    for measure, base, aligned in measures:
        columns = np.stack([base, aligned, aligned - base], axis=1)
        low, high = sum_intervals(columns, suite.groups, draws=bootstrap, seed=seed)
        values = columns.mean(axis=0)
        rows.append(
            (suite.name, suite.kind, template, measure, values[0], values[1], values[2], low[2], high[2])
            + (len(suite), len(set(suite.groups)), low[0], high[0], low[1], high[1])
        )
    return Costs(COSTS.frame(rows))


def answer_costs(
    answers: Answers,
    *,
    judge: Judge | None = None,
    error: JudgeError | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Costs:
    """Refusals, tokens and time of both models' answers.

    ``refusal_rate`` on a capability suite is over-refusal, on a benefit suite the benefit; its intervals hold the
    error of the rule or judge (`refusal_rates`). ``tokens`` count an answer up to its end or the cut.
    ``seconds_per_item`` is wall time of both in one run: no two runs agree on it. Its interval resamples the batches
    (blank where a model needed one batch only).

    Args:
        answers: what both models said.
        judge: who says which answers refuse; None: the rule.
        error: the judge's error; by default measured on the answers held back.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.

    Returns:
        Costs of refusal_rate, tokens and seconds_per_item.
    """
    asked = [item.prompt or "" for item in answers.suite.items]
    sides = {"base": answers.base, "aligned": answers.aligned}
    refused = {side: refuses(texts, requests=asked, judge=judge) for side, texts in sides.items()}
    counted = [tokens.astype(np.float64) for tokens in answers.tokens]
    measures = [("refusal_rate", refused["base"], refused["aligned"]), ("tokens", counted[0], counted[1])]
    found = costs_of(answers.suite, answers.template, measures, bootstrap=bootstrap, seed=seed).frame
    rates = rate_intervals(
        refused, answers.suite.groups, error=error or judge_error(judge), changes=[("change", "base", "aligned")],
        draws=bootstrap, seed=seed,
    )  # fmt: skip
    for name, prefix in (("base", "base_"), ("aligned", "aligned_"), ("change", "")):
        found.loc[0, [f"{prefix}low", f"{prefix}high"]] = rates[name].low, rates[name].high
    timed = found.iloc[:1].assign(measure="seconds_per_item", **_seconds(answers, bootstrap=bootstrap, seed=seed))
    return Costs(pd.concat([found, timed], ignore_index=True))


def _seconds(answers: Answers, *, bootstrap: int, seed: int) -> dict[str, float]:
    """Seconds per item of both models, with intervals over batches where there are two or more of each."""
    base, aligned = (seconds / len(answers.base) for seconds in answers.seconds)
    found = {"base": base, "aligned": aligned, "change": aligned - base}
    found |= dict.fromkeys(("low", "high", "base_low", "base_high", "aligned_low", "aligned_high"), float("nan"))
    if any(len(batches) < 2 for batches in answers.batches):
        return found
    drawn, deviations = [], []
    for place, (side, batches) in enumerate(zip(("base", "aligned"), answers.batches)):
        counts, seconds = batches.T
        drawn.append(group_counts(len(batches), draws=bootstrap, seed=seed + place) @ batches)
        deviations.append((seconds - found[side] * counts) / counts.sum())
        over = ratio_interval(seconds, counts, range(len(batches)), draws=bootstrap, seed=seed + place)
        found |= {f"{side}_low": over.low, f"{side}_high": over.high}
    changes = drawn[1][:, 1] / drawn[1][:, 0] - drawn[0][:, 1] / drawn[0][:, 0]
    low, high = ends(changes[:, None], welch_tail(deviations, 0.95))
    return found | {"low": float(low[0]), "high": float(high[0])}
