"""Plans that need more than one look at the weights: learned masks, patched modules, checkpoints, relearning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.prompts import Prompting, one_prompting
from taxlens.analysis.frontier.orders import ORDERS
from taxlens.analysis.frontier.plans import (
    Plan,
    Scores,
    Units,
    best_coefficients,
    changed_units,
    ranked_plans,
    wanted_count,
)  # fmt: skip
from taxlens.analysis.interventions.graft import restore_effects
from taxlens.analysis.scoring.budget import TRAINING_PASSES, minutes_for, read_tokens
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.weights.gradients import first_order_loss, weight_slopes
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from taxlens.analysis.weights.weight_edits import puts_back
from taxlens.core.errors import UsageError, explain
from taxlens.core.memory import refuse_beyond_memory
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.frontier.front import Benefit
    from taxlens.analysis.frontier.order_plans import PlanContext


MASK_STEPS, MASK_ITEMS = 15, 24
"""Steps of a learned mask, and items of each suite a step."""
PATCH_ITEMS = 32
"""Items of each suite that whole components are tried on."""
RELEARN_STEPS, RELEARN_ITEMS = 10, 24
"""Steps of relearning, and items of each taxed suite a step."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a learned plan may look at: the training halves, and what counts on them.

    Args:
        pair: the two checkpoints.
        suites: training halves by name.
        taxed: suites whose taxes are to be returned.
        benefit: what is to be kept.
        metric: metric of the taxed suites.
        template: suite name to template.
        seed: of every draw.
    """

    pair: ModelPair
    suites: Mapping[str, Suite]
    taxed: tuple[str, ...]
    benefit: Benefit
    metric: str
    template: Mapping[str, str]
    seed: int = 0

    def asked(self, suite: Suite) -> tuple[Suite, Prompting]:
        """A suite (or some of its items) with how it is asked."""
        return suite, one_prompting(self.pair, suite, self.template[suite.name])


def mask_plans(context: PlanContext) -> list[Plan]:
    """Return the plans of order "learned_mask", at the shares of the path's plans."""
    units = context.units
    mask = learned_mask(_lesson(context), units, benefit_total=context.scores.benefit_total, progress=context.progress)
    shares = [plan.n_units / len(units.names) for plan in context.path]
    plans = ranked_plans(units, mask, order="learned_mask", shares=shares)
    return [
        replace(plan, name=like.name.replace("path", "learned_mask", 1))
        for plan, like in zip(plans, context.path, strict=True)
    ]


def relearn_plans(context: PlanContext) -> list[Plan]:
    """Return the plan of order "relearn": a few steps of training on the taxed training items."""
    opened = partial(relearned, _lesson(context))
    nan = float("nan")
    return [Plan(f"relearn-{RELEARN_STEPS}", "component", "relearn", {}, 0, nan, nan, open=opened)]


def _lesson(context: PlanContext) -> Lesson:
    if context.lesson is None:
        raise UsageError("orders that look at the training items again need them: give the context a lesson.")
    return context.lesson


def learned_mask(
    lesson: Lesson, units: Units, *, benefit_total: float, steps: int = MASK_STEPS, items: int = MASK_ITEMS, rate: float = 0.3,
    sparsity: float = 0.05, keep: float = 0.95, progress: Progress = SILENT,
) -> np.ndarray:  # fmt: skip
    """A mask over units, learned by gradient on the training items: how far each is undone, in 0..1, [units].

    Maximises the tax returned less a price on the benefit lost beyond what may be lost and on the size of the
    mask (Adam on logits). Every step draws some items of each suite. Localize-and-Stitch learns such a mask
    over single weights; here it is over the same units as the other orders.

    References:
        Localize-and-Stitch, arXiv 2408.13656.
    """
    difference = difference_of(lesson.pair)
    members = [difference.unit(name, level=units.level) for name in units.names]
    logits, first, second = (np.full(len(members), -3.0), np.zeros(len(members)), np.zeros(len(members)))
    scale: float | None = None
    with progress.task("learn a mask", total=steps, unit="steps") as task:
        for step in range(1, steps + 1):
            mask = 1 / (1 + np.exp(-logits))
            gain, lost = np.zeros(len(mask)), np.zeros(len(mask))
            with mixture(
                lesson.pair,
                dict(zip(units.names, mask.tolist(), strict=True)),
                difference=difference,
                level=units.level,
            ) as model:
                for name in dict.fromkeys([*lesson.taxed, *lesson.benefit.suites]):
                    suite = at_most(lesson.suites[name], items, seed=lesson.seed + step)
                    here = partial(first_order_loss, model, [lesson.asked(suite)], difference, members)
                    if name in lesson.taxed:
                        gain += here(metric=lesson.metric)[name]
                    if name in lesson.benefit.suites:
                        lost -= lesson.benefit.signs[name] * here(metric="margin")[name] / max(benefit_total, 1e-9)
            scale = scale or float(np.abs(gain).sum()) or 1.0
            price = 1.0 if float(mask @ np.maximum(lost, 0)) > 1 - keep else 0.1
            slope = (gain / scale - price * lost - sparsity / len(mask)) * mask * (1 - mask)
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            logits = logits + rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
            task.advance(1)
    return logits


def patch_plans(context: PlanContext, *, items: int = PATCH_ITEMS, keep: float = 0.95) -> list[Plan]:
    """Whole components restored, those first whose restoration alone returned most on the training items.

    As many of the changed components as the share of units in the path's plans, at least one.

    References:
        Weight patching, arXiv 2604.13694.
    """
    lesson = _lesson(context)
    pair = lesson.pair
    components = changed_units(difference_of(pair), "component")
    suites = [at_most(suite, items, seed=lesson.seed) for suite in lesson.suites.values()]
    measure = ChoiceMeasure(
        pair, tuple(suites), template=dict(lesson.template), metrics=tuple(dict.fromkeys((lesson.metric, "margin")))
    )
    restore = restore_effects(
        pair, measure, groups=measure.groups, units=components.names, draws=10, progress=context.progress
    )
    tax = np.sum([restore.mean(name, lesson.metric) for name in lesson.taxed], axis=0)
    signs = lesson.benefit.signs
    brought = -np.sum([signs[s] * restore.mean(s, "margin") for s in lesson.benefit.suites], axis=0)
    total = -sum(signs[s] * float(restore.taxes[s, "margin"].mean()) for s in lesson.benefit.suites)
    scores = Scores(tax, brought, total)
    plans = []
    for plan in context.path:
        count = wanted_count(components, _share_of(plan))
        name = plan.name.replace(plan.order, "weight_patch", 1)
        plans.append(components.plan(name, "weight_patch", best_coefficients(scores, count=count, keep=keep)))
    return plans


def checkpoint_plans(context: PlanContext) -> list[Plan]:
    """Earlier checkpoints of the same training as plans; their energy is that of the way back to them.

    Raises:
        UsageError: none was given.
    """
    pair, checkpoints = _lesson(context).pair, context.checkpoints
    if not checkpoints:
        fix = "give `checkpoints`, or leave the order out."
        raise UsageError(explain("order checkpoint needs earlier checkpoints of the training.", (), fix))
    base, aligned = (dict(m.model.named_parameters()) for m in (pair.base, pair.aligned))
    whole = sum(float((aligned[name] - base[name]).double().square().sum()) for name in base)
    plans = []
    for name, loaded in checkpoints.items():
        there = dict(loaded.model.named_parameters())
        back = sum(float((aligned[key] - there[key]).double().square().sum()) for key in base)
        opened = partial(_opened, loaded.model)
        plans.append(
            Plan(f"checkpoint-{name}", "component", "checkpoint", {}, 0, float("nan"), back / whole, open=opened)
        )
    return plans


@dataclass(frozen=True, slots=True)
class LearningCost:
    """What the cost of an order that looks at the training items again is counted from.

    Args:
        pair: the two checkpoints.
        suites: training halves.
        taxed: names of the suites whose taxes are to be returned.
        template: suite name to template.
    """

    pair: ModelPair
    suites: Sequence[Suite]
    taxed: Sequence[str]
    template: Mapping[str, str]

    def tokens(self, items: int, *, taxed: bool = False, shared: bool = False) -> int:
        """Tokens of so many items of each suite (or of each taxed one); a prompt counts once for all choices if shared."""
        few = [at_most(suite, items) for suite in self.suites if suite.name in self.taxed or not taxed]
        return sum(read_tokens(self.pair, one, template=self.template[one.name], shared=shared) for one in few)


def mask_passes(cost: LearningCost) -> float:
    """Tokens that learning a mask reads, counted in forward passes."""
    return MASK_STEPS * TRAINING_PASSES * cost.tokens(MASK_ITEMS)


def patch_passes(cost: LearningCost) -> float:
    """Tokens that restoring each component alone reads."""
    return len(changed_units(difference_of(cost.pair), "component").names) * cost.tokens(PATCH_ITEMS, shared=True)


def relearn_passes(cost: LearningCost) -> float:
    """Tokens that relearning reads, counted in forward passes."""
    return RELEARN_STEPS * TRAINING_PASSES * cost.tokens(RELEARN_ITEMS, taxed=True)


def learning_minutes(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    taxed: Sequence[str],
    orders: Sequence[str],
    template: Mapping[str, str],
) -> float:
    """Estimated minutes of making the plans of these orders (measuring them is not counted), on two cores."""
    cost, passes = LearningCost(pair, suites, taxed, template), [ORDERS[order].passes for order in orders]
    return minutes_for(pair, sum(one(cost) for one in passes if one is not None))


@contextmanager
def relearned(
    lesson: Lesson, *, steps: int = RELEARN_STEPS, rate: float = 0.002, items: int = RELEARN_ITEMS
) -> Iterator[Any]:
    """Yield the aligned model after a few steps of training on the taxed training items; put it back on leaving.

    The cheapest thing that a reader would otherwise try, with no eye on the benefit.

    References:
        Spurious forgetting, arXiv 2501.13453.
    """
    suites = [lesson.suites[name] for name in lesson.taxed]
    with training(
        lesson.pair, suites, template=lesson.template, steps=steps, rate=rate, items=items, seed=lesson.seed
    ) as model:
        yield model


@contextmanager
def training(
    pair: ModelPair, suites: Sequence[Suite], *, template: Mapping[str, str], steps: int, rate: float, items: int,
    seed: int = 0, enough: Callable[[Any], bool] | None = None, every: int = 15,
) -> Iterator[Any]:  # fmt: skip
    """Yield the aligned model after some steps of Adam on the likelihood of the gold answers; put it back on leaving.

    Every weight that alignment changed is trained, on some items of each suite a step.

    Args:
        pair: the two checkpoints.
        suites: what is trained on.
        template: suite name to template.
        steps: of the training, at most.
        rate: step size, as a share of each weight matrix's root mean square.
        items: drawn anew from each suite at each step.
        seed: of the draws.
        enough: asked of the model after every `every` steps; training ends when it says so.
        every: steps between two askings.
    """
    difference = difference_of(pair)
    model = pair.aligned.model
    modules = [role.name for role in pair.aligned.anatomy.modules if difference.changed(role.name)]
    weights = {(m, n): p for m in modules for n, p in model.get_submodule(m).named_parameters(recurse=False)}
    home = home_of(pair.aligned.device, training_bytes(weights.values()))
    kept = {key: p.detach().to(home or p.device, copy=True) for key, p in weights.items()}
    once = Counter(p.data_ptr() for p in weights.values())  # in 32 bits a weight of one use is trained as it stands
    masters = {
        key: p.detach()
        if _is_wide(p) and home is None and once[p.data_ptr()] == 1
        else p.detach().to(home or p.device, wide_of(p), copy=True)
        for key, p in weights.items()
    }
    moments = {key: (torch.zeros_like(p), torch.zeros_like(p)) for key, p in masters.items()}
    with puts_back(model):
        try:
            for step in range(1, steps + 1):
                for suite in suites:
                    some = at_most(suite, items, seed=seed + step)
                    asked = one_prompting(pair, some, template[suite.name])
                    slopes, _ = weight_slopes(model, some, asked, modules=modules, metric="nll")
                    for key, slope in slopes.items():
                        _adam(masters[key], slope.to(masters[key].device), moments[key], step, rate)
                        if masters[key].data_ptr() != weights[key].data_ptr():  # a copy
                            with torch.no_grad():
                                weights[key].copy_(masters[key])
                if enough is not None and step % every == 0 and enough(model):
                    break
            yield model
        finally:
            with torch.no_grad():
                for key, p in weights.items():
                    p.copy_(kept[key])


def training_bytes(weights: Iterable[torch.Tensor]) -> int:
    """Bytes that training weights holds beside them and their gradients: what they were, float32 copies, two moments."""
    return sum(p.numel() * (p.element_size() + (8 if _is_wide(p) else 12)) for p in weights)


def home_of(device: torch.device, needed: int) -> torch.device | None:
    """Where a training's copies and moments go: None beside the weights, else the host's memory.

    Args:
        device: of the model.
        needed: see `training_bytes`.

    Raises:
        UsageError: they fit neither on the device nor into the host's memory.
    """
    fix = "diagnose.relearn: false, no order relearn; or more memory."
    if device.type == "cuda" and torch.cuda.is_available():
        if needed < 0.9 * torch.cuda.mem_get_info(device)[0]:
            return None
        refuse_beyond_memory("training the changed weights", needed, fix)
        return torch.device("cpu")
    if device.type == "cpu":
        refuse_beyond_memory("training the changed weights", needed, fix)
    return None


def wide_of(weight: torch.Tensor) -> torch.dtype:
    """The dtype in which a weight is trained."""
    return weight.dtype if _is_wide(weight) else torch.float32


def _is_wide(weight: torch.Tensor) -> bool:
    """Whether a weight can be trained as it is: in 16 bits a small step is lost in rounding, for ever."""
    return weight.dtype in (torch.float32, torch.float64)


def _adam(
    weight: torch.Tensor, slope: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor], step: int, rate: float
) -> None:
    first, second = moments
    with torch.no_grad():
        first.mul_(0.9).add_(slope, alpha=0.1)
        second.mul_(0.999).addcmul_(slope, slope, value=0.001)
        spread = (second / (1 - 0.999**step)).sqrt().add_(1e-8)
        size = rate * float(weight.square().mean().sqrt())
        weight.addcdiv_(first, spread, value=-size / (1 - 0.9**step))


@contextmanager
def _opened(model: Any) -> Iterator[Any]:
    yield model


def _share_of(plan: Plan) -> float:
    """The share that a plan's name says ("path-2.5%")."""
    return float(plan.name.rpartition("-")[2].rstrip("%")) / 100
