"""What getting the capability back costs: plans chosen on one half of the items, measured on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.items.holdout import SuiteSplit, leak_report, split_suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.prompts import asked_apart
from taxlens.analysis.frontier.effects_cache import kept_or_new
from taxlens.analysis.frontier.front import Benefit, Frontier
from taxlens.analysis.frontier.options import ANSWER_TOKENS, Options, ready_options
from taxlens.analysis.frontier.order_plans import PlanContext, first_plans
from taxlens.analysis.frontier.orders import ORDERS
from taxlens.analysis.frontier.plan_runs import PlanRuns
from taxlens.analysis.frontier.plans import Plan, Scores, Units, changed_units, effect_plans
from taxlens.analysis.frontier.trained_plans import Lesson, learning_minutes
from taxlens.analysis.frontier.training_effects import TrainEffects, stability_frame
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.path.attribution import Attribution
from taxlens.analysis.scoring.budget import Cost, attribution_minutes, minutes_for, plan_cost, within_budget
from taxlens.analysis.scoring.evaluator import MEASURED, ChoiceMeasure, losses, named
from taxlens.analysis.weights.units import Difference, difference_of
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.shared_work import shared
from taxlens.core.stats.intervals import mean_interval
from taxlens.core.stats.ratios import joint_mean

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair


def frontier(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    benefit: str,
    against: str = "",
    taxed: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
    template: str | Mapping[str, str] = "plain",
    attribution: Attribution | Sequence[Attribution] | None = None,
    checkpoints: Mapping[str, Any] | None = None,
    options: Options | None = None,
    folder: Path | str | None = None,
    progress: Progress = SILENT,
    **more: Any,
) -> Frontier:
    """Undo parts of the update, measure what comes back of the tax and what is lost of the benefit.

    Every suite is split in two halves that share neither group nor gold answer (the leak report says what else
    they share). On the first half each unit of the update gets its effect on the taxes and on the benefit; plans
    undo the units with the most tax for the least benefit, beside the orders that they must beat. All plans are
    measured on the second half. The benefit is selective: refusal log-odds on harmful minus those on harmless
    prompts, in nats, and by generation for `generate` prompts of each.

    Args:
        pair: the two checkpoints.
        suites: capability suites (gold: the right answer) and the benefit suite (gold: the refusal).
        benefit: name of the suite that alignment was for.
        against: name of a suite of harmless prompts (gold: complying); blank: the benefit is not selective, and
            the result says so.
        taxed: suites whose tax is to be returned; by default every capability suite but `against` whose tax on
            the training half has an interval above 0.
        candidates: capability suites to look at for that; by default all.
        template: "plain" or "chat" for all suites, or suite name to template.
        attribution: path attribution(s) that hold the training items at the unit's level with `metric` and
            "margin"; None: the training halves are attributed now.
        checkpoints: name to loaded model, for order "checkpoint": earlier checkpoints of the same training.
        options: `Options`, which says what each field means; single fields may be given by keyword.
        folder: where measured plans are kept, so that a killed run resumes.
        progress: told of every plan.

    Returns:
        The frontier.

    Raises:
        UsageError: no such suite, no taxed suite, a benefit that alignment did not raise, an unknown order.
        ItemError: too few items to split.

    References:
        Lin et al. 2024 (model averaging); Shuttleworth 2025 and arXiv 2605.20296 (singular values); arXiv
        2408.13656 (learned mask); arXiv 2604.13694 (weight patching); arXiv 2501.13453 (relearning); arXiv
        2603.03995 (re-weighting singular values by gradient).
    """
    work = frontier_work(
        pair, suites, benefit=benefit, against=against, candidates=taxed or candidates, template=template, options=options,
        progress=progress, **more,
    )  # fmt: skip
    work.folder = None if folder is None else Path(folder)
    names = work.taxed(taxed)
    train = work.train_effects(attribution, names)
    scores = train.scores(names, work.benefit, metric=work.options.metric)
    plans = work.plans(train, scores, names, checkpoints or {})
    return work.measure(plans, train, scores, names)


def frontier_cost(pair: ModelPair, suites: Sequence[Suite], **asked: Any) -> Cost:
    """What `frontier` with the same arguments will measure, without running anything."""
    work = frontier_work(pair, suites, **asked)
    count = work.plan_count(max(1, len(work.candidates)))
    held = work.held_suites([*work.candidates, *work.benefit.suites], count)
    return replace(plan_cost(pair, held, plans=count, template=work.templates), **work.other_costs(work.candidates))


def frontier_work(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    benefit: str,
    against: str = "",
    candidates: Sequence[str] | None = None,
    template: str | Mapping[str, str] = "plain",
    options: Options | None = None,
    progress: Progress = SILENT,
    **more: Any,
) -> FrontierWork:
    """What `frontier` with the same arguments works on, before anything is run."""
    return FrontierWork(pair, suites, benefit, against, template, ready_options(options, more), progress, candidates)


class FrontierWork:
    """A frontier under way: suites split, effects found, plans chosen, plans measured."""

    def __init__(
        self, pair: ModelPair, suites: Sequence[Suite], benefit: str, against: str,
        template: str | Mapping[str, str], options: Options, progress: Progress,
        candidates: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.pair, self.options, self.progress = pair, options, progress
        self.folder: Path | None = None
        self.suites = {suite.name: suite for suite in suites}
        self.templates = {name: template if isinstance(template, str) else template[name] for name in self.suites}
        self.benefit = Benefit.named(suites, benefit, against)
        capabilities = [s.name for s in suites if s.kind == "capability" and s.name != against]
        self.candidates = capabilities if candidates is None else [named(suites, name).name for name in candidates]
        self.notes = [] if against else [
            f"no harmless prompts were given beside {benefit}: refusing everything would count as benefit"
        ]  # fmt: skip
        apart = [suite.name for suite in suites if asked_apart(pair, suite, self.templates[suite.name])]
        if apart:
            self.notes.append(
                f"{', '.join(apart)}: base and aligned differ in the prompt that each is asked in; "
                "plans are measured in one, so their taxes are without what the prompts make"
            )
        self.splits: dict[str, SuiteSplit] = {
            suite.name: split_suite(suite, holdout=options.holdout, disjoint=options.disjoint, seed=options.seed)
            for suite in suites
            if suite.name in self.candidates or suite.name in self.benefit.suites
        }

    @property
    def difference(self) -> Difference:
        return difference_of(self.pair)

    @property
    def units(self) -> Units:
        return changed_units(self.difference, self.options.unit)

    def half(self, name: str, side: str) -> Suite:
        half, most = self.suites[name].subset(getattr(self.splits[name], side)), self.options.train_items
        return at_most(half, most, seed=self.options.seed) if side == "train" else half

    def train_effects(
        self, attribution: Attribution | Sequence[Attribution] | None, taxed: Sequence[str]
    ) -> TrainEffects:
        """Effects on the training halves of the taxed suites and of the benefit: no others are paid for."""
        halves = self.train_halves(taxed)
        if attribution is None:
            found = self._attributed(halves, attribute, tolerance=self.options.tolerance)
        else:
            found = [attribution] if isinstance(attribution, Attribution) else list(attribution)
        units, local = self.units, None
        if self.options.keep is not None or "one_gradient" in self.options.orders:
            local = TrainEffects(self._attributed(halves, gradient_effects), halves, units)
        return TrainEffects(found, halves, units, local=local)

    def train_halves(self, taxed: Sequence[str]) -> list[Suite]:
        """Training halves of the taxed suites and of the benefit's."""
        return [self.half(name, "train") for name in dict.fromkeys([*taxed, *self.benefit.suites])]

    def _attributed(self, halves: Sequence[Suite], method: Any, **options: Any) -> list[Any]:
        """One attribution a template, of the metric that plans are chosen on and of the margin."""
        found = []
        o = self.options
        for template in dict.fromkeys(self.templates[suite.name] for suite in halves):
            mine = [suite for suite in halves if self.templates[suite.name] == template]
            metrics = tuple(dict.fromkeys((o.metric, "margin")))
            run = partial(
                method, self.pair, mine, template=template, metrics=metrics, levels=("component", o.unit), tokens=False,
                perplexity=False, max_gradients=o.max_gradients, bootstrap=o.bootstrap, seed=o.seed, progress=self.progress, **options,
            )  # fmt: skip
            key = [method.__name__, self.pair.base.sha256, self.pair.aligned.sha256, template, metrics, o.unit,
                   o.max_gradients, sorted(options.items()), *((s.name, s.sha256) for s in mine)]  # fmt: skip
            found.append(kept_or_new(self.folder, key, o.unit, run))
        return found

    def taxed(self, asked: Sequence[str] | None) -> list[str]:
        """The suites whose taxes are to be returned, by their tax on the training half; the benefit must have risen."""
        o = self.options
        halves = self.train_halves(self.candidates if asked is None else asked)
        metrics = tuple(dict.fromkeys((o.metric, "margin")))
        measure = ChoiceMeasure(self.pair, tuple(halves), template=self.templates, metrics=metrics)
        base, aligned = PlanRuns(self.pair, measure, self.difference, self.folder).ends()
        self._check_benefit(base, aligned, measure.groups)
        if asked is not None:
            return [named(list(self.suites.values()), name).name for name in asked]
        lost, found, rows = losses(aligned, base), [], []
        for name in self.candidates:
            tax = mean_interval(lost[name, o.metric], measure.groups[name], seed=o.seed)
            rows.append((name, f"{tax.value:+.4g} [{tax.low:.4g}, {tax.high:.4g}]"))
            if tax.low > 0:
                found.append(name)
            else:
                self.notes.append(f"{name} is not among the taxed suites: {o.metric} tax {rows[-1][1]}")
        if not found:
            fix = "name suites with `taxed`, or give suites that lost."
            raise UsageError(explain("no suite has a tax above 0 on its training half: nothing to return.", rows, fix))
        return found

    def plan_count(self, n_taxed: int) -> int:
        """Plans that the options ask for (checkpoints not counted)."""
        o = self.options
        count = sum(ORDERS[order].count(o) for order in o.orders)
        return count + (n_taxed * len(o.shares) if o.leave_out and n_taxed > 1 else 0)

    def plans(
        self, train: TrainEffects, scores: Scores, taxed: Sequence[str], checkpoints: Mapping[str, Any]
    ) -> list[Plan]:
        """Every plan that the options ask for, path first."""
        o, units = self.options, train.units
        halves = {suite.name: suite for suite in self.train_halves(taxed)}
        context = PlanContext(
            o, units, scores, path=first_plans(o, units, scores),
            local=None if train.local is None else train.local.scores(taxed, self.benefit, metric=o.metric),
            lesson=Lesson(self.pair, halves, tuple(taxed), self.benefit, o.metric, self.templates, o.seed),
            checkpoints=checkpoints, progress=self.progress,
        )  # fmt: skip
        plans = [plan for order in o.orders for plan in ORDERS[order].plans(context)]
        if o.leave_out and len(taxed) > 1 and "path" in o.orders:
            for name in taxed:
                rest = scores.without(name)
                plans += effect_plans(units, rest, order="path", shares=o.shares, keep=o.keep, left_out=name)
        return plans

    def held_suites(self, names: Sequence[str], plans: int) -> list[Suite]:
        """The held-out halves, cut to the bound on items and to the budget."""
        o = self.options
        held = [self.half(name, "held") for name in dict.fromkeys(names)]
        if o.items != "all":
            held = [at_most(suite, int(o.items), seed=o.seed) for suite in held]
        if o.budget_minutes is not None:
            other = self.other_costs([name for name in names if name not in self.benefit.suites])
            left = o.budget_minutes - other["attribution"] - other["generation"] - other["learning"]
            held = within_budget(self.pair, held, plans=plans, minutes=left, template=self.templates, seed=o.seed)
        return held

    def other_costs(self, taxed: Sequence[str]) -> dict[str, Any]:
        """What is run beside measuring plans: minutes of attribution, answers by generation and their minutes."""
        o = self.options
        gradients = o.max_gradients + (o.keep is not None or "one_gradient" in o.orders)
        named_plans = 2 * len(o.shares) if o.generate_plans is None else len(o.generate_plans)
        prompts = sum(len(suite) for suite in self.prompts())
        halves = self.train_halves(taxed)
        answers = prompts * (named_plans + 3)
        return {
            "attribution": attribution_minutes(self.pair, halves, gradients=gradients, template=self.templates),
            "learning": learning_minutes(self.pair, halves, taxed=taxed, orders=o.orders, template=self.templates),
            "answers": answers,
            "generation": minutes_for(self.pair, answers * ANSWER_TOKENS),
        }

    def prompts(self) -> list[Suite]:
        """Held-out prompts that are answered by generation."""
        o = self.options
        return [at_most(self.half(s, "held"), o.generate, seed=o.seed) for s in self.benefit.suites if o.generate]

    def measure(self, plans: Sequence[Plan], train: TrainEffects, scores: Scores, taxed: Sequence[str]) -> Frontier:
        """Every plan on the held-out halves, and the figures that were predicted for it."""
        o = self.options
        held = self.held_suites([*taxed, *self.benefit.suites], len(plans))
        measure = ChoiceMeasure(self.pair, tuple(held), template=self.templates, metrics=MEASURED)
        for name in o.generate_plans or ():
            one_of(name, [plan.name for plan in plans], what="plan to generate with")
        prompts = self.prompts()
        runs = PlanRuns(self.pair, measure, self.difference, self.folder, tuple(prompts))
        base, aligned = runs.ends()
        self._check_benefit(base, aligned, measure.groups)
        values = {}
        with self.progress.task("measure plans", total=len(plans), unit="plans") as task:
            named_plans = {plan.name: plan for plan in plans}
            found_values = shared("plans", list(named_plans), lambda name: runs.values(named_plans[name]))
            for name, found in zip(named_plans, found_values, strict=True):
                values[name] = found
                task.advance(1, note=name)
        mixtures = [plan for plan in plans if plan.open is None]
        stable = [plan for plan in plans if plan.order == "path" and not plan.left_out][: len(o.shares)]
        found = Frontier(
            plans=tuple(plans), base=base, aligned=aligned, values=values,
            predicted={
                plan.name: train.predicted(plan, [*taxed, *self.benefit.suites], MEASURED) for plan in mixtures
            },
            predicted_benefit={plan.name: train.predicted_benefit(plan, scores) for plan in mixtures},
            benefit=self.benefit, taxed=tuple(taxed), metric=o.metric, groups=measure.groups,
            held_out={name: self.splits[name].held_out for name in taxed},
            leaks=leak_report([self.suites[n] for n in self.splits], list(self.splits.values())),
            stability=stability_frame(stable, [
                train.stability(plan, taxed, self.benefit, metric=o.metric, share=share, keep=o.keep, seed=o.seed)
                for plan, share in zip(stable, o.shares, strict=False)
            ]),
            notes=tuple(self.notes), wanted=o.wanted, margin=o.margin, draws=o.bootstrap, seed=o.seed,
        )  # fmt: skip
        return self._with_generation(found, runs, prompts) if o.generate else found

    def _with_generation(self, found: Frontier, runs: PlanRuns, prompts: Sequence[Suite]) -> Frontier:
        """Answers of both ends, of the plans that are named (or path and one-gradient) and of the recommended one."""
        shown = set(self.options.generate_plans or ()) | {found.recommended} - {""}
        if self.options.generate_plans is None:
            shown |= {p.name for p in found.plans if p.order in ("path", "one_gradient") and not p.left_out}
        chosen = [plan for plan in found.plans if plan.name in shown]
        generated = {}
        models: dict[str, Plan | str] = {"base": "base", "aligned": "aligned"} | {plan.name: plan for plan in chosen}
        with self.progress.task("answers", total=len(models), unit="models") as task:
            answers = shared("answers of plans", list(models), lambda name: runs.refusals(models[name]))
            for name, refused in zip(models, answers, strict=True):
                generated[name] = refused
                task.advance(1)
        groups = {suite.name: suite.groups for suite in prompts}
        return replace(found, generated=generated, prompt_groups=groups)

    def _check_benefit(self, base: Any, aligned: Any, groups: Mapping[str, np.ndarray]) -> None:
        before, after = self.benefit.columns(base), self.benefit.columns(aligned)
        gained = [one - two for one, two in zip(after, before, strict=True)]
        raised = joint_mean(gained, self.benefit.groups(groups), seed=self.options.seed)
        if raised.low <= 0:
            rows = [
                ("benefit", " minus ".join(self.benefit.suites)),
                ("raised by", f"{raised.value:+.3g} nats [{raised.low:.3g}, {raised.high:.3g}]"),
                ("items", raised.n_items),
            ]
            fix = "give the suite that alignment was for, with the wanted behaviour as gold."
            raise UsageError(explain("alignment did not raise this benefit: there is nothing to keep.", rows, fix))
