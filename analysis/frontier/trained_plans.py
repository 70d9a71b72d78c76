"""Plans that need more than one look at the weights: learned masks, patched modules, checkpoints, relearning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.prompts import Prompting, one_prompting
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
from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.frontier.front import Benefit


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


def extra_plans(
    pair: ModelPair, suites: Sequence[Suite], units: Units, *, like: Sequence[Plan], orders: Sequence[str],
    taxed: Sequence[str], benefit: Benefit, scores: Scores, metric: str, template: Mapping[str, str],
    checkpoints: Mapping[str, Any], seed: int = 0, progress: Progress = SILENT,
) -> dict[str, list[Plan]]:  # fmt: skip
    """Plans of the named orders, each at the shares of the plans that they are compared with.

    Args:
        pair: the two checkpoints.
        suites: training halves: the only items that these plans see.
        units: the units of the other plans.
        like: the path plans.
        orders: of learned_mask, weight_patch, checkpoint, relearn.
        taxed, benefit, metric, template: as in `Lesson`.
        scores: path effects; their total benefit scales the learned mask's price.
        checkpoints: name to loaded model.
        seed: of every draw.
        progress: told of each step.

    Returns:
        Order name to plans.

    Raises:
        UsageError: order "checkpoint" without a checkpoint.
    """
    lesson = Lesson(pair, {s.name: s for s in suites}, tuple(taxed), benefit, metric, template, seed)
    found: dict[str, list[Plan]] = {}
    if "learned_mask" in orders:
        mask = learned_mask(lesson, units, benefit_total=scores.benefit_total, progress=progress)
        shares = [plan.n_units / len(units.names) for plan in like]
        renamed = [plan.name.replace("path", "learned_mask", 1) for plan in like]
        plans = ranked_plans(units, mask, order="learned_mask", shares=shares)
        found["learned_mask"] = [_named(plan, name) for plan, name in zip(plans, renamed, strict=True)]
    if "weight_patch" in orders:
        found["weight_patch"] = patch_plans(lesson, like=like, progress=progress)
    if "checkpoint" in orders:
        found["checkpoint"] = checkpoint_plans(pair, checkpoints)
    if "relearn" in orders:
        opened = partial(relearned, lesson)
        found["relearn"] = [
            Plan(f"relearn-{RELEARN_STEPS}", "component", "relearn", {}, 0, float("nan"), float("nan"), open=opened)
        ]
    return found


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


def patch_plans(
    lesson: Lesson, *, like: Sequence[Plan], items: int = PATCH_ITEMS, keep: float = 0.95, progress: Progress = SILENT
) -> list[Plan]:
    """Whole components restored, those first whose restoration alone returned most on the training items.

    As many of the changed components as the share of units in the plans they are compared with, at least one.

    References:
        Weight patching, arXiv 2604.13694.
    """
    pair = lesson.pair
    components = changed_units(difference_of(pair), "component")
    suites = [at_most(suite, items, seed=lesson.seed) for suite in lesson.suites.values()]
    measure = ChoiceMeasure(
        pair, tuple(suites), template=dict(lesson.template), metrics=tuple(dict.fromkeys((lesson.metric, "margin")))
    )
    restore = restore_effects(pair, measure, groups=measure.groups, units=components.names, draws=10, progress=progress)
    tax = np.sum([restore.mean(name, lesson.metric) for name in lesson.taxed], axis=0)
    signs = lesson.benefit.signs
    brought = -np.sum([signs[s] * restore.mean(s, "margin") for s in lesson.benefit.suites], axis=0)
    total = -sum(signs[s] * float(restore.taxes[s, "margin"].mean()) for s in lesson.benefit.suites)
    scores = Scores(tax, brought, total)
    plans = []
    for plan in like:
        count = wanted_count(components, _share_of(plan))
        name = plan.name.replace(plan.order, "weight_patch", 1)
        plans.append(components.plan(name, "weight_patch", best_coefficients(scores, count=count, keep=keep)))
    return plans


def checkpoint_plans(pair: ModelPair, checkpoints: Mapping[str, Any]) -> list[Plan]:
    """Earlier checkpoints of the same training as plans; their energy is that of the way back to them.

    Raises:
        UsageError: none was given.
    """
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


def learning_minutes(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    taxed: Sequence[str],
    orders: Sequence[str],
    template: Mapping[str, str],
) -> float:
    """Estimated minutes of making the plans of these orders (measuring them is not counted), on two cores."""

    def tokens(items: int, names: Sequence[str], *, shared: bool) -> int:
        few = [at_most(suite, items) for suite in suites if suite.name in names]
        return sum(read_tokens(pair, suite, template=template[suite.name], shared=shared) for suite in few)

    every, passes = [suite.name for suite in suites], 0.0
    if "learned_mask" in orders:
        passes += MASK_STEPS * TRAINING_PASSES * tokens(MASK_ITEMS, every, shared=False)
    if "weight_patch" in orders:
        passes += len(changed_units(difference_of(pair), "component").names) * tokens(PATCH_ITEMS, every, shared=True)
    if "relearn" in orders:
        passes += RELEARN_STEPS * TRAINING_PASSES * tokens(RELEARN_ITEMS, taxed, shared=False)
    return minutes_for(pair, passes)


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
    kept = {key: p.detach().clone() for key, p in weights.items()}
    masters = {key: p.detach().clone() if _is_wide(p) else p.detach().float() for key, p in weights.items()}
    moments = {key: (torch.zeros_like(p), torch.zeros_like(p)) for key, p in masters.items()}
    try:
        for step in range(1, steps + 1):
            for suite in suites:
                some = at_most(suite, items, seed=seed + step)
                asked = one_prompting(pair, some, template[suite.name])
                slopes, _ = weight_slopes(model, some, asked, modules=modules, metric="nll")
                for key, slope in slopes.items():
                    _adam(masters[key], slope, moments[key], step, rate)
                    with torch.no_grad():
                        weights[key].copy_(masters[key])
            if enough is not None and step % every == 0 and enough(model):
                break
        yield model
    finally:
        with torch.no_grad():
            for key, p in weights.items():
                p.copy_(kept[key])


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


def _named(plan: Plan, name: str) -> Plan:
    return Plan(name, plan.unit, plan.order, plan.undo, plan.n_units, plan.share_undone, plan.energy_undone)
