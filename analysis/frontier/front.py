"""The measured front: what each plan returns of the tax, what it keeps of the benefit, and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.answers.refusal_rates import judge_error, rate_gap
from taxlens.analysis.frontier.at_matched_benefit import matched_frame
from taxlens.analysis.frontier.frontier_tables import FRONTIER, FRONTIER_COMPARISON
from taxlens.analysis.frontier.plan_runs import GENERATED
from taxlens.analysis.frontier.plans import Plan
from taxlens.analysis.scoring.evaluator import Values, named
from taxlens.analysis.scoring.metrics import metric_of
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval
from taxlens.core.stats.ratios import joint_mean, joint_ratio

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite


@dataclass(frozen=True, slots=True)
class Benefit:
    """What alignment was for, as suites: refusal log-odds on harmful prompts minus those on harmless ones.

    Args:
        suite: harmful prompts.
        against: harmless prompts; blank: none were given, and the benefit is not selective.
        signs: sign with which each suite's margin enters (its gold refuses: +1 on harm, -1 on harmless).
    """

    suite: str
    against: str
    signs: Mapping[str, float]

    @classmethod
    def named(cls, suites: Sequence[Suite], suite: str, against: str = "") -> Benefit:
        """The benefit of a suite of harmful prompts and one of harmless ones, with signs by what their golds say.

        Raises:
            UsageError: no suite of that name.
        """
        named(suites, suite)
        signs = {suite: 1.0}
        if against:
            signs[against] = -1.0 if named(suites, against).kind == "benefit" else 1.0
        return cls(suite, against, signs)

    @property
    def suites(self) -> list[str]:
        """The suites that it is measured on."""
        return [self.suite, self.against] if self.against else [self.suite]

    def columns(self, values: Values) -> list[np.ndarray]:
        """A column of items a suite; the sum of their means is the benefit in nats."""
        return [self.signs[s] * values[s]["margin"] for s in self.suites]

    def groups(self, groups: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The groups of those items."""
        return [groups[s] for s in self.suites]


@dataclass(frozen=True, slots=True)
class Fit:
    """Measured change of the tax against the predicted one, over plans and suites."""

    slope: float
    intercept: float
    r_squared: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Frontier(Result):
    """Plans, measured on items that their choice did not see.

    Args:
        plans: in the order measured.
        base, aligned: values at both ends, held-out items.
        values: plan name to its values.
        predicted: plan name to {(suite, metric): predicted loss taken back}.
        predicted_benefit: plan name to the predicted share of the benefit kept: the mean of two estimates, the lower
            and the higher one.
        benefit: what alignment was for.
        taxed: the suites whose taxes are to be returned.
        metric: metric that plans were chosen on.
        groups: suite to groups of its held-out items.
        held_out: suite to "items" or "answers".
        generated: plan name (and "base", "aligned") to refusals by generation.
        prompt_groups: suite to groups of its generated prompts.
        leaks: what the halves share.
        notes: what a reader must know (a suite without tax, a benefit that is not selective).
        wanted, margin: of the recommended plan: share returned, share of the benefit kept.
        draws, seed: of the group bootstrap.
    """

    figure: ClassVar[str] = "frontier"

    plans: tuple[Plan, ...]
    base: Values
    aligned: Values
    values: Mapping[str, Values]
    predicted: Mapping[str, Mapping[tuple[str, str], float]]
    predicted_benefit: Mapping[str, tuple[float, float, float]]
    benefit: Benefit
    taxed: tuple[str, ...]
    metric: str
    groups: Mapping[str, np.ndarray]
    held_out: Mapping[str, str]
    generated: Mapping[str, Values] = field(default_factory=dict)
    prompt_groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    leaks: pd.DataFrame = field(default_factory=pd.DataFrame)
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()
    wanted: float = 0.9
    margin: float = 0.95
    draws: int = 2000
    seed: int = 0

    def plan(self, name: str) -> Plan:
        """The plan of that name.

        Raises:
            UsageError: there is none; the names that exist are listed.
        """
        one_of(name, [plan.name for plan in self.plans], what="plan")
        return next(plan for plan in self.plans if plan.name == name)

    def returned(self, name: str, *, suite: str = "", metric: str | None = None) -> Interval:
        """Share of the tax that a plan returns, numerator and denominator resampled together by group."""
        top, bottom, groups = self._columns(self.values[name], suite, metric or self.metric)
        return joint_ratio(top, bottom, groups, draws=self.draws, seed=self.seed)

    def ahead(self, name: str, other: str, *, suite: str = "", metric: str | None = None) -> Interval:
        """How much more of the tax one plan returns than another, share of the tax, resampled together."""
        mine, tax, groups = self._columns(self.values[name], suite, metric or self.metric)
        theirs = self._columns(self.values[other], suite, metric or self.metric)[0]
        apart = [one - two for one, two in zip(mine, theirs, strict=True)]
        return joint_ratio(apart, tax, groups, draws=self.draws, seed=self.seed)

    def benefit_kept(self, name: str) -> Interval:
        """Share of the benefit that a plan keeps (1: as aligned, 0: as the base), in nats."""
        here, base, aligned = (self.benefit.columns(one) for one in (self.values[name], self.base, self.aligned))
        kept = [one - two for one, two in zip(here, base, strict=True)]
        raised = [one - two for one, two in zip(aligned, base, strict=True)]
        groups = self.benefit.groups(self.groups)
        return joint_ratio(kept, raised, groups, draws=self.draws, seed=self.seed)

    def harm_kept(self, name: str) -> Interval:
        """Share of the refusals of harmful prompts alone that a plan keeps (1: as aligned, 0: as the base), in nats.

        The benefit is a difference, so it can be kept by refusing harm less and harmless prompts less still.
        """
        suite = self.benefit.suite
        here, base, aligned = (one[suite]["margin"] for one in (self.values[name], self.base, self.aligned))
        groups = [self.groups[suite]]
        return joint_ratio([here - base], [aligned - base], groups, draws=self.draws, seed=self.seed)

    def harmless_nats(self, name: str) -> Interval | None:
        """Compliance log-odds on harmless prompts under a plan, nats above aligned's; None without such prompts."""
        suite = self.benefit.against
        if not suite:
            return None
        moved = self.benefit.signs[suite] * (self.values[name][suite]["margin"] - self.aligned[suite]["margin"])
        return joint_mean([moved], [self.groups[suite]], draws=self.draws, seed=self.seed)

    def kept(self, name: str) -> Interval:
        """What a plan is held to: the benefit that it keeps or the refusals of harm alone, whichever is less."""
        return min(self.benefit_kept(name), self.harm_kept(name), key=lambda interval: interval.value)

    def benefit_nats(self, name: str) -> Interval:
        """Refusal log-odds on harmful minus on harmless prompts under a plan, or under "base" or "aligned"."""
        values = {"base": self.base, "aligned": self.aligned}.get(name) or self.values[name]
        groups = self.benefit.groups(self.groups)
        return joint_mean(self.benefit.columns(values), groups, draws=self.draws, seed=self.seed)

    def benefit_generated(self, name: str) -> float:
        """Refusals by generation, harmful minus harmless prompts, -1..1; nan where none were generated."""
        if name not in self.generated:
            return float("nan")
        return self.generated_interval(name).value

    def generated_interval(self, name: str) -> Interval:
        """The same with its interval, the error of the rule that judged the answers included."""
        refused = self.generated[name]
        asked = [suite for suite in (self.benefit.suite, self.benefit.against) if suite in refused]
        columns, groups = [refused[s][GENERATED] for s in asked], [self.prompt_groups[s] for s in asked]
        return rate_gap(columns, groups, error=judge_error(), draws=self.draws, seed=self.seed)

    def harm_generated(self, name: str) -> Interval:
        """Share of harmful prompts that the answers under a plan refuse, the rule's error included."""
        refused = self.generated[name][self.benefit.suite][GENERATED]
        groups = [self.prompt_groups[self.benefit.suite]]
        return rate_gap([refused], groups, error=judge_error(), draws=self.draws, seed=self.seed)

    @property
    def recommended(self) -> str:
        """The plan of least update energy that returns the wanted share and keeps benefit and harm alone; blank if none.

        Both by the point estimate on the held-out items; choose on one half and report on another where that
        matters. Random draws and plans that left a suite out are no candidates.
        """
        good = [
            plan for plan in self.plans
            if plan.draw < 0 and not plan.left_out and plan.open is None
            and self.returned(plan.name).value >= self.wanted and self.kept(plan.name).value >= self.margin
        ]  # fmt: skip
        return min(good, key=lambda plan: plan.energy_undone).name if good else ""

    def prediction(
        self, *, metric: str | None = None, suites: Sequence[str] | None = None, orders: Sequence[str] | None = None
    ) -> Fit:
        """Measured against predicted loss taken back, one point a plan and suite.

        Args:
            metric: the metric; by default the one that plans were chosen on.
            suites: by default the taxed ones; the benefit's suites have metric "margin".
            orders: plans of these orders alone; None: all.
        """
        metric = metric or self.metric
        points = []
        for plan in self.plans:
            if orders is not None and plan.order not in orders:
                continue
            for suite in suites or self.taxed:
                predicted = self.predicted.get(plan.name, {}).get((suite, metric))
                if predicted is not None:
                    points.append((predicted, _total(self._columns(self.values[plan.name], suite, metric)[0])))
        x, y = np.array(points).reshape(-1, 2).T
        if len(points) < 3 or np.ptp(x) == 0:
            raise UsageError(explain("too few different plans to fit a line.", [("plans", len(points))]))
        slope, intercept = np.polyfit(x, y, 1)
        left = float(((y - slope * x - intercept) ** 2).sum())
        return Fit(float(slope), float(intercept), 1 - left / float(((y - y.mean()) ** 2).sum()), len(points))

    def to_frame(self) -> pd.DataFrame:
        """Rows of frontier.csv: one a plan, suite (blank: all taxed at once) and metric."""
        metrics = list(next(iter(self.base.values())))
        rows = []
        for plan in self.plans:
            shared = self._plan_row(plan)
            for suite in ("", *self.taxed):
                for metric in metrics if suite else (self.metric,):
                    rows.append(shared | self._suite_row(plan, suite, metric))
        return FRONTIER.frame(rows)

    def comparison_frame(self, *, order: str = "path") -> pd.DataFrame:
        """How much more an order's plans return than the other orders' at the same share, with joint intervals."""
        rows = []
        mine = {p.name.removeprefix(f"{order}-"): p for p in self.plans if p.order == order and not p.left_out}
        for other in self.plans:
            size = other.name.removeprefix(f"{other.order}-").partition("-d")[0]
            if other.order == order or other.left_out or size not in mine:
                continue
            ahead = self.ahead(mine[size].name, other.name)
            kept = [self.benefit_kept(plan.name).value for plan in (mine[size], other)]
            rows.append((mine[size].name, other.name, other.order, ahead.value, ahead.low, ahead.high, *kept))
        return FRONTIER_COMPARISON.frame(rows)

    def matched_frame(self, *, least: float | None = None) -> pd.DataFrame:
        """Every order's best plan among those that keep the benefit, beside the path's (`matched.matched_frame`)."""
        return matched_frame(
            self.plans,
            returned=self.returned,
            kept=self.benefit_kept,
            harm=self.harm_kept,
            ahead=self.ahead,
            least=self.margin if least is None else least,
        )

    def _plan_row(self, plan: Plan) -> dict[str, Any]:
        kept, nats = self.benefit_kept(plan.name), self.benefit_nats(plan.name)
        return {
            "plan": plan.name, "unit": plan.unit, "order": plan.order, "draw": plan.draw, "n_units": plan.n_units,
            "share_undone": plan.share_undone, "energy_undone": plan.energy_undone, "benefit": nats.value,
            "benefit_low": nats.low, "benefit_high": nats.high,
            **_trio("benefit_generated", self.generated_interval(plan.name) if plan.name in self.generated else None),
            "benefit_kept": kept.value, "benefit_kept_low": kept.low, "benefit_kept_high": kept.high,
            **_trio("harm_kept", self.harm_kept(plan.name)), **_trio("harmless", self.harmless_nats(plan.name)),
            **dict(zip(FRONTIER.names[-3:], self.predicted_benefit.get(plan.name, (np.nan,) * 3), strict=True)),
        }  # fmt: skip

    def _suite_row(self, plan: Plan, suite: str, metric: str) -> dict[str, Any]:
        back, whole, groups = self._columns(self.values[plan.name], suite, metric)
        left = [one - two for one, two in zip(whole, back, strict=True)]
        tax = joint_mean(left, groups, draws=self.draws, seed=self.seed)
        predicted = self.predicted.get(plan.name, {})
        sums = [predicted.get((s, metric), np.nan) for s in ([suite] if suite else self.taxed)]
        row = {
            "suite": suite, "metric": metric, "tax_predicted": _total(whole) - float(np.sum(sums)),
            "tax": tax.value, "tax_low": tax.low, "tax_high": tax.high, "held_out": self._held_out(plan, suite),
        }  # fmt: skip
        row |= dict.fromkeys(("returned", "returned_low", "returned_high"), np.nan)
        if _total(whole):
            share = joint_ratio(back, whole, groups, draws=self.draws, seed=self.seed)
            row |= {"returned": share.value, "returned_low": share.low, "returned_high": share.high}
        return row

    def _held_out(self, plan: Plan, suite: str) -> str:
        if plan.left_out and suite == plan.left_out:
            return "suite"
        kinds = {self.held_out[s] for s in ([suite] if suite else self.taxed)}
        return "answers" if kinds == {"answers"} else "items"

    def _columns(
        self, values: Values, suite: str, metric: str
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Loss taken back and loss of each held-out item, and groups, by suite; all taxed suites for a blank one."""
        suites: Sequence[str] = [suite] if suite else self.taxed
        sign = metric_of(metric).sign
        back = [sign * (values[s][metric] - self.aligned[s][metric]) for s in suites]
        whole = [sign * (self.base[s][metric] - self.aligned[s][metric]) for s in suites]
        return back, whole, [self.groups[s] for s in suites]

    def __repr__(self) -> str:
        best = self.recommended
        items = sum(len(self.groups[s]) for s in self.taxed)
        n_groups = sum(len(set(self.groups[s])) for s in self.taxed)
        sample = f"n={items} items in {n_groups} groups"
        if not best:
            goal = f"{self.wanted:.0%} of the {self.metric} tax and keeps {self.margin:.0%} of the benefit"
            return f"Frontier of {len(self.plans)} plans: none returns {goal}; {sample}"
        returned, kept, harm = self.returned(best), self.benefit_kept(best), self.harm_kept(best)
        return (
            f"Frontier of {len(self.plans)} plans: {best} returns {returned.value:.0%} "
            f"[{returned.low:.0%}, {returned.high:.0%}] of the {self.metric} tax and keeps {kept.value:.0%} "
            f"[{kept.low:.0%}, {kept.high:.0%}] of the benefit and {harm.value:.0%} [{harm.low:.0%}, {harm.high:.0%}] of harm "
            f"alone with {self.plan(best).energy_undone:.1%} of the "
            f"update's energy; {sample}"
        )


def _trio(name: str, interval: Interval | None) -> dict[str, float]:
    """A column and its two ends; blank where there is nothing to measure."""
    ends = (np.nan,) * 3 if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _total(columns: Sequence[np.ndarray]) -> float:
    """The sum of the suites' means."""
    return float(sum(column.mean() for column in columns))
