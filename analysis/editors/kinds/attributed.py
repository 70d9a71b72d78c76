"""Editors of the update's units that read effects first: path order, one gradient, and spectral surgery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linprog

from taxlens.activations.items.items import Suite
from taxlens.activations.items.sampling import at_most
from taxlens.analysis.editors.edit import Edit, unit_edit
from taxlens.analysis.editors.objective import Validator
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.frontier.plans import Units, changed_units
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.weights.gradients import first_order_loss
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from taxlens.core.progress import SILENT, Progress

RADII = (0.25, 0.15, 0.1)
"""How far a coefficient may move in each step after the first."""

KEEPS = (1.0, 0.95, 1.05, 0.9, 1.1, 1.15, 1.2, 0.85)
"""Shares of the refusal log-odds on harm that a plan is predicted to keep, in the order in which they are tried."""


@dataclass(frozen=True, slots=True, eq=False)
class TradeOffs:
    """What each unit costs and brings, float64 [units].

    Args:
        tax: loss on the taxed suites, summed, in the metric that plans are chosen on.
        harm: refusal log-odds on harmful prompts, nats that the unit brought.
        harmless: compliance log-odds on harmless prompts that the unit took, nats.
        harm_total: all that alignment brought of the second, nats.
    """

    tax: np.ndarray
    harm: np.ndarray
    harmless: np.ndarray
    harm_total: float


def path(
    task: EditTask, *, tries: int = 3, items: int = 40, gradients: int = 7, steps: int = 3, progress: Progress = SILENT
) -> Iterator[Edit]:
    """The most predicted tax for the least predicted harm, by path effects, then re-attributed after each step.

    A linear programme on path effects and on the gradient at the aligned weights, each bounding the refusals lost. Then,
    step by step: what the plan keeps is measured on the training items, the effects are taken anew at its own weights, and
    the programme is solved again for a move of at most `RADII` of every coefficient. The best plan on the training
    items is the candidate.

    Args:
        task: items and roles.
        tries: most candidates: shares of the refusals to keep.
        items: most training items a suite.
        gradients: most gradients of the attribution.
        steps: times that effects are taken anew for a candidate.
        progress: told of every gradient.
    """
    units = changed_units(difference_of(task.pair), task.unit)
    along = unit_effects(task, units, attribute, "probability", items, max_gradients=gradients, progress=progress)
    ends = unit_effects(task, units, gradient_effects, "margin", items, progress=progress)
    seen = Validator(replace(task, validation=_few(task, items)))
    for keep in KEEPS[: max(1, tries)]:
        undone = solved(along.tax, [along, ends], keep)
        best, best_score = undone, -np.inf
        for step in range(steps + 1):
            with _undone(task, units, undone) as model:
                now = seen(model)
            score = now.score(keep)
            if score > best_score:
                best, best_score = undone, score
            if step == steps:
                break
            again = local_effects(task, units, undone, items, brought=along.harm_total)
            room = (now.harm_kept - keep, now.harmless / again.harm_total)
            undone = solved(again.tax, [again], keep, around=undone, radius=RADII[min(step, len(RADII) - 1)], room=room)
        yield _edit(task, units, "path", keep, best)


def one_gradient(task: EditTask, *, tries: int = 3, items: int = 40, progress: Progress = SILENT) -> Iterator[Edit]:
    """The same programme on one gradient of the margin at the aligned weights (arXiv 2408.09485)."""
    units = changed_units(difference_of(task.pair), task.unit)
    ends = unit_effects(task, units, gradient_effects, "margin", items, progress=progress)
    for keep in KEEPS[: max(1, tries)]:
        yield _edit(task, units, "one_gradient", keep, solved(ends.tax, [ends], keep))


def solved(
    tax: np.ndarray,
    effects: Sequence[TradeOffs],
    keep: float,
    *,
    around: np.ndarray | None = None,
    radius: float = 0.25,
    room: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Coefficients in [0, 1] with the most tax, harm and harmless each bounded by every estimate.

    max tax . a with harm . a <= (1 - keep) * harm_total and harmless . a not below 0: compliance on harmless prompts must not
    be predicted to fall.

    Args:
        tax: what each unit costs.
        effects: estimates of what each unit brings; taken at the weights of `around` where that is given.
        keep: share of the refusals to keep.
        around: coefficients that may move by at most `radius`; the bounds then hold for the move.
        radius: of the move.
        room: what a move may cost, where `around` is given: refusals of harm and compliance on harmless prompts, both
            as a share of what alignment brought of the first. Below 0: what the move has to bring back.

    Returns:
        float64 [units]; zeros (or `around`) where nothing meets the bounds.
    """
    start = np.zeros(len(tax)) if around is None else around
    low = np.zeros(len(tax)) if around is None else np.maximum(0, around - radius) - around
    high = np.ones(len(tax)) if around is None else np.minimum(1, around + radius) - around
    lose = (1 - keep, 0.0) if around is None else room
    rows = [row for e in effects for row in (e.harm / e.harm_total, -e.harmless / e.harm_total)]
    bounds = [bound for _ in effects for bound in lose]
    scale = float(np.abs(tax).max()) or 1.0
    found = linprog(-tax / scale, A_ub=np.array(rows), b_ub=bounds, bounds=np.stack([low, high], 1), method="highs")
    if not found.success:  # the plan that is predicted to lose least
        found = linprog(np.sum(rows, axis=0), bounds=np.stack([low, high], 1), method="highs")
    moved = start + found.x
    return np.where(np.abs(moved) < 1e-9, 0.0, moved)


def local_effects(task: EditTask, units: Units, undone: np.ndarray, items: int, *, brought: float) -> TradeOffs:
    """Effects by one gradient at the weights where the units are undone by these coefficients.

    Args:
        task: items and roles.
        units: of the update.
        undone: how far each is undone, [units].
        items: most training items a suite.
        brought: refusal log-odds on harm that alignment brought, nats: what shares of harm are of.
    """
    difference = difference_of(task.pair)
    members = [difference.unit(name, level=units.level) for name in units.names]
    found: dict[str, np.ndarray] = {}
    with _undone(task, units, undone) as model:
        for suite in _few(task, items).values():
            found |= first_order_loss(model, [(suite, task.prompting(suite))], difference, members, metric="margin")
    tax = np.sum([found[name] for name in task.taxed], axis=0)
    return TradeOffs(tax, -found[task.harm], found[task.harmless], brought)


def unit_effects(
    task: EditTask, units: Units, method: Any, metric: str, items: int, *, progress: Progress = SILENT, **options: Any
) -> TradeOffs:
    """Effects of the units on the training items: `metric` for the taxed suites, margins for harm and harmless."""
    by_template: dict[str, list[Suite]] = {}
    for name, suite in _few(task, items).items():
        by_template.setdefault(task.template[name], []).append(suite)
    values: dict[tuple[str, str], np.ndarray] = {}
    total = 0.0
    for template, suites in by_template.items():
        found = method(
            task.pair, suites, template=template, metrics=tuple(dict.fromkeys((metric, "margin"))),
            levels=("component", units.level), tokens=False, perplexity=False, bootstrap=100, seed=task.seed,
            progress=progress, **options,
        )  # fmt: skip
        for name, suite in found.suites.items():
            place = {unit: i for i, unit in enumerate(suite.units[units.level])}
            columns = [place[unit] for unit in units.names]
            for one in (metric, "margin"):
                values[name, one] = suite.values[one, units.level][:, columns].mean(axis=0)
            if name == task.harm:
                total = -float(suite.taxes["margin"].mean())
    tax = np.sum([values[name, metric] for name in task.taxed], axis=0)
    return TradeOffs(tax, -values[task.harm, "margin"], values[task.harmless, "margin"], total)


def spectral_surgery(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Re-weight singular values of attention-out and MLP-down updates by the taxed loss's gradient (arXiv 2603.03995).

    First as published: the fifth with the largest |gradient| times 1.25, the fifth with the smallest times .8, then all
    rescaled so that a matrix's singular values keep their sum; then signed: sigma * exp(-eta g), eta 2 where the gradient
    harms and .2 where it helps, with and without the rescaling.
    """
    units = changed_units(difference_of(task.pair), "singular")
    difference = difference_of(task.pair)
    members = [difference.unit(name, level="singular") for name in units.names]
    g = np.zeros(len(members))
    for name, suite in _few(task, 32).items():
        if name in task.taxed:
            g += first_order_loss(
                task.pair.aligned.model, [(suite, task.prompting(suite))], difference, members, metric="nll"
            )[name]
    sigma = np.sqrt(units.energy)
    g = g / np.maximum(sigma, 1e-12)
    modules = np.array([member.parts[0].module for member in members])
    inside = np.array([m.rsplit(".", 1)[-1] in _WRITING for m in modules]) & np.array(
        [member.parts[0].triple is not None for member in members]
    )
    for label in ("as published", "signed", "signed, sum not kept")[: max(1, tries)]:
        factor = np.ones(len(members))
        for module in np.unique(modules[inside]):
            at = np.flatnonzero(inside & (modules == module))
            factor[at] = surgery_factors(g[at], sigma[at], signed="signed" in label, rescale="not kept" not in label)
        undo = dict(zip(units.names, (1 - factor).tolist(), strict=True))
        energy = float((1 - factor) ** 2 @ units.energy / units.total)
        yield unit_edit(
            task.pair, "spectral_surgery", label, undo, energy=energy, free=int(inside.sum()), level="singular"
        )


_WRITING = frozenset({"o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h"})
"""Last part of the names of matrices that write to the stream."""


def surgery_factors(g: np.ndarray, sigma: np.ndarray, *, signed: bool, rescale: bool = True) -> np.ndarray:
    """What each singular value of one matrix is multiplied by, from the loss's gradient by it."""
    size = np.abs(g)
    size = size / (size.mean() or 1.0)
    if signed:
        normal = g / (np.abs(g).mean() or 1.0)
        factor = np.exp(-np.where(normal > 0, 2.0, 0.2) * normal)
    else:
        factor, order, fifth = np.ones(len(g)), np.argsort(size, kind="stable"), round(0.2 * len(g))
        factor[order[len(g) - fifth :]] = 1.25
        factor[order[:fifth]] = 0.8
    return factor * sigma.sum() / float(factor @ sigma) if rescale and float(factor @ sigma) > 0 else factor


def _undone(task: EditTask, units: Units, undone: np.ndarray) -> AbstractContextManager[Any]:
    undo = dict(zip(units.names, undone.tolist(), strict=True))
    return mixture(task.pair, undo, difference=difference_of(task.pair), level=units.level)


def _few(task: EditTask, items: int) -> Mapping[str, Suite]:
    return {name: at_most(task.train[name], items, seed=task.seed) for name in task.suites}


def _edit(task: EditTask, units: Units, editor: str, keep: float, undone: np.ndarray) -> Edit:
    energy = float(undone**2 @ units.energy / units.total)
    undo = dict(zip(units.names, undone.tolist(), strict=True))
    return unit_edit(task.pair, editor, f"keep {keep:.0%}", undo, energy=energy, free=len(undone), level=units.level)
