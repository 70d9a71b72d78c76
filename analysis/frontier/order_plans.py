"""The plans of each order that needs no more than the effects of the units, and what orders are given to make them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxlens.analysis.frontier.plans import (
    Plan,
    Scores,
    Units,
    effect_plans,
    layer_plans,
    random_plans,
    ranked_plans,
    uniform_plans,
)  # fmt: skip
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    import numpy as np

    from taxlens.analysis.frontier.options import Options
    from taxlens.analysis.frontier.trained_plans import Lesson


@dataclass(frozen=True, slots=True, eq=False)
class PlanContext:
    """What an order makes its plans from.

    Args:
        options: shares, draws, what to keep.
        units: the units that may be undone.
        scores: their effects by the path, on the training half.
        path: plans of order "path", one a share: what other orders are compared with.
        local: the effects by one gradient at the aligned weights, where they were had.
        lesson: the pair and the training items, for orders that look at them again.
        checkpoints: name to loaded model, earlier checkpoints of the same training.
        progress: told of each step.
    """

    options: Options
    units: Units
    scores: Scores
    path: tuple[Plan, ...] = ()
    local: Scores | None = None
    lesson: Lesson | None = None
    checkpoints: Mapping[str, Any] | None = None
    progress: Progress = SILENT


def first_plans(options: Options, units: Units, scores: Scores) -> tuple[Plan, ...]:
    """Return the plans of order "path", one a share, that the other orders are compared with."""
    return tuple(effect_plans(units, scores, order="path", shares=options.shares, keep=options.keep))


def _keeping(context: PlanContext, scores: Scores, order: str) -> list[Plan]:
    """Plans chosen to keep further shares of the benefit."""
    o = context.options
    return [
        plan
        for keep in o.keeps
        for plan in effect_plans(
            context.units, scores, order=order, shares=o.shares, keep=keep, suffix=keep_suffix(keep)
        )
    ]


def keep_suffix(keep: float) -> str:
    """Return how the name of a plan that is to keep another share of the benefit ends."""
    return f"-keep{100 * keep:g}%"


def path_plans(context: PlanContext) -> list[Plan]:
    """Return the plans with the largest predicted tax returned for the least benefit, by the weight path."""
    return [*context.path, *_keeping(context, context.scores, "path")]


def one_gradient_plans(context: PlanContext) -> list[Plan]:
    """Return the same by one gradient at the aligned weights."""
    o, local = context.options, context.local
    if local is None:
        return []
    plans = effect_plans(context.units, local, order="one_gradient", shares=o.shares, keep=o.keep)
    return plans + _keeping(context, local, "one_gradient")


def _ranked(context: PlanContext, order: str, key: np.ndarray) -> list[Plan]:
    return ranked_plans(context.units, key, order=order, shares=context.options.shares)


def magnitude_plans(context: PlanContext) -> list[Plan]:
    """Return plans of the units with the largest change."""
    return _ranked(context, "magnitude", context.units.energy)


def smallest_plans(context: PlanContext) -> list[Plan]:
    """Return plans of the units with the smallest change."""
    return _ranked(context, "smallest", -context.units.energy)


def reverse_plans(context: PlanContext) -> list[Plan]:
    """Return plans of the units that cost least."""
    return _ranked(context, "reverse", -context.scores.tax)


def drawn_plans(context: PlanContext) -> list[Plan]:
    """Return random plans with the energy of path plans, at the shares that are drawn at."""
    o = context.options
    like = [p for p, share in zip(context.path, o.shares, strict=True) if share in (o.draw_shares or o.shares)]
    return random_plans(context.units, like, draws=o.draws, seed=o.seed)


def swept_plans(context: PlanContext) -> list[Plan]:
    """Return plans that undo every unit by one coefficient."""
    return uniform_plans(context.units, context.options.uniform)


def per_layer_plans(context: PlanContext) -> list[Plan]:
    """Return plans with one coefficient a layer."""
    o, units, scores, like = context.options, context.units, context.scores, context.path
    plans = layer_plans(units, scores, like=like, keep=o.keep)
    for keep in o.keeps:
        plans += layer_plans(units, scores, like=like, keep=keep, extra=(), suffix=keep_suffix(keep))
    return plans
