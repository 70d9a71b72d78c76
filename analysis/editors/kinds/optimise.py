"""Editors of the update's own units, optimised jointly: coefficients of all of them, by layer, or as a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from taxlens.analysis.editors.edit import Edit, unit_edit
from taxlens.analysis.editors.kinds.unit_model import unit_model
from taxlens.analysis.editors.objective import Draw, Objective, Prices, Validator
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.frontier.plans import Units, changed_units
from taxlens.analysis.weights.units import difference_of
from taxlens.core.progress import SILENT, Progress

LOW, HIGH = -0.5, 1.5
"""Bounds of how much of a unit is kept: below 0 it is reversed, above 1 it is strengthened."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps, and the price of harm in each stage; every stage's end is a candidate.

    Args:
        stages: (steps, price of the hinge on harm), one after the other.
        rate: step size; also the trust region: no coefficient moves further in one step.
        warmup: steps over which the rate rises.
        every: steps between two looks at the validation items.
        keep: share of the refusal log-odds on harm that a candidate has to keep on validation.
        patience: looks without a better one before training stops.
    """

    stages: tuple[tuple[int, float], ...] = ((28, 5.0), (20, 2.5), (16, 1.2))
    rate: float = 0.06
    warmup: int = 5
    every: int = 6
    keep: float = 0.95
    patience: int = 3

    @property
    def steps(self) -> int:
        """All steps."""
        return sum(steps for steps, _ in self.stages)

    def rate_at(self, step: int) -> float:
        """The rate at a step from 1: risen over the warm-up, falling to a tenth over the last two fifths."""
        start = 0.6 * self.steps
        fall = 1.0 if step <= start else 1 - 0.9 * (step - start) / max(1.0, self.steps - start)
        return self.rate * min(1.0, step / self.warmup) * fall


STEPS, PRICES = 64, (5.0, 1.2)
"""Steps of all stages together, and the prices of harm of the first and of the last stage."""


def schedule_for(tries: int) -> Schedule:
    """As many stages as settings may be tried, the price of harm falling from one to the next."""
    if tries == 1:
        return Schedule(stages=((40, PRICES[0]), (STEPS - 40, PRICES[1])))
    prices = np.geomspace(*PRICES, tries)
    ends = np.round(np.linspace(0, STEPS, tries + 1)).astype(int)
    return Schedule(
        stages=tuple((int(b - a), round(float(p), 3)) for a, b, p in zip(ends[:-1], ends[1:], prices, strict=True))
    )


def joint(
    task: EditTask, *, tries: int = 3, schedule: Schedule | None = None, progress: Progress = SILENT
) -> Iterator[Edit]:
    """Coefficients of all units optimised together, each kept in [-.5, 1.5] of itself; one candidate a price of harm."""
    units = changed_units(difference_of(task.pair), task.unit)
    index = np.arange(len(units.names))
    yield from _descended(task, units, index, "joint", (LOW, HIGH), schedule or schedule_for(tries), tries, progress)


def per_layer(
    task: EditTask, *, tries: int = 3, schedule: Schedule | None = None, progress: Progress = SILENT
) -> Iterator[Edit]:
    """One coefficient a layer in [0, 1], optimised on the same loss (model averaging, Lin et al. 2024)."""
    units = changed_units(difference_of(task.pair), task.unit)
    index = np.unique(units.layers, return_inverse=True)[1]
    yield from _descended(task, units, index, "per_layer", (0.0, 1.0), schedule or schedule_for(tries), tries, progress)


def mask(
    task: EditTask, *, tries: int = 3, schedule: Schedule | None = None, progress: Progress = SILENT
) -> Iterator[Edit]:
    """A mask over units: optimised on the same loss in [0, 1], rounded at the cut that validation likes best.

    In the spirit of Localize-and-Stitch (arXiv 2408.13656), which learns what to keep and never sees a taxed item.
    """
    units = changed_units(difference_of(task.pair), task.unit)
    validate = Validator(task, 12)
    for edit in _descended(
        task, units, np.arange(len(units.names)), "mask", (0.0, 1.0), schedule or schedule_for(tries), tries, progress
    ):
        undone = np.array([edit.undo.get(name, 0.0) for name in units.names])
        best: tuple[float, Edit] | None = None
        for cut in (0.25, 0.5, 0.75):
            rounded = _edit(task, units, (undone > cut).astype(float), "mask", edit.label)
            with rounded.opened() as model:
                score = validate(model).score((schedule or schedule_for(tries)).keep)
            if best is None or score > best[0]:
                best = (score, rounded)
        if best is not None:
            yield best[1]


def _descended(
    task: EditTask, units: Units, index: np.ndarray, editor: str, bounds: tuple[float, float], schedule: Schedule,
    tries: int, progress: Progress,
) -> Iterator[Edit]:  # fmt: skip
    """Adam on what is kept of each unit (or group of units), gradients taken anew at every step's weights."""
    objective = Objective(task, draw=Draw())
    kept = torch.ones(int(index.max()) + 1, dtype=torch.float64, requires_grad=True)
    place = torch.as_tensor(index)

    def undone() -> torch.Tensor:
        return 1 - kept[place]

    def take(step: int, chosen: dict[str, list[int]], prices: Prices) -> None:
        with unit_model(task.pair, units.names, undone, level=task.unit) as model:
            objective.backward(model, chosen, prices)
        adam.step(schedule.rate_at(step))

    adam = Adam(kept, bounds)

    def candidate(label: str) -> Edit:
        return _edit(task, units, (1 - kept.detach()[place]).numpy(), editor, label, free=len(kept))

    yield from staged(objective, schedule, editor, take, kept_state(kept), candidate, tries, progress)


def kept_state(
    *tensors: torch.Tensor,
) -> tuple[Callable[[], list[torch.Tensor]], Callable[[Sequence[torch.Tensor]], None]]:
    """Two functions: copies of the tensors now, and putting such copies back."""

    def read() -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in tensors]

    def write(values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)

    return read, write


def staged(
    objective: Objective, schedule: Schedule, editor: str, take: Callable[[int, dict[str, list[int]], Prices], None],
    state: tuple[Callable[[], list[torch.Tensor]], Callable[[Sequence[torch.Tensor]], None]],
    candidate: Callable[[str], Edit], tries: int, progress: Progress, prices: Prices | None = None,
) -> Iterator[Edit]:  # fmt: skip
    """Steps through the stages of a schedule; of each stage the state that validation likes best is a candidate.

    Args:
        objective: whose validation items stop a stage.
        schedule: stages, of which the last `tries` give candidates.
        editor: name, for the progress.
        take: one step, from (number, items by suite, prices).
        state: reads and writes what is trained.
        candidate: the edit at the present state, from a label.
        tries: most candidates.
        progress: told of every step.
        prices: other terms of the loss.
    """
    read, write = state
    prices = prices or Prices()
    batches, step = objective.batches(schedule.steps), 0
    with progress.task(editor, total=schedule.steps, unit="steps") as bar:
        for number, (steps, price) in enumerate(schedule.stages):
            best, best_score, stale = read(), -np.inf, 0
            for k in range(1, steps + 1):
                step += 1
                take(step, next(batches), replace(prices, harm=price))
                bar.advance(1)
                if k % schedule.every and k != steps:
                    continue
                with candidate("").opened() as model:
                    score = objective.validator(model).score(schedule.keep)
                if score > best_score:
                    best, best_score, stale = read(), score, 0
                    continue
                stale += 1
                if stale >= schedule.patience:
                    break
            now = read()
            if number >= len(schedule.stages) - tries:
                write(best)
                yield candidate(f"harm price {price:g}")
            write(best if stale >= schedule.patience else now)


class Adam:
    """Adam with bounds; gradients are scaled by their running size, so the rate is the largest move of a step."""

    def __init__(self, values: torch.Tensor, bounds: tuple[float, float] | None = None) -> None:
        self.values, self.bounds, self.count = values, bounds, 0
        self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)

    def step(self, rate: float, *, most: float | None = None) -> None:
        """One step down the gradient that has gathered, which is cleared; `most` clips its norm first."""
        grad = self.values.grad
        if grad is None:
            return
        self.count += 1
        with torch.no_grad():
            if most is not None:
                grad = grad * min(1.0, most / (float(grad.norm()) + 1e-12))
            self.first.mul_(0.9).add_(grad, alpha=0.1)
            self.second.mul_(0.99).addcmul_(grad, grad, value=0.01)
            spread = (self.second / (1 - 0.99**self.count)).sqrt() + 1e-12
            move = (self.first / (1 - 0.9**self.count) / spread).clamp(-1, 1)
            self.values.sub_(rate * move)
            if self.bounds is not None:
                self.values.clamp_(*self.bounds)
            self.values.grad = None


def _edit(
    task: EditTask, units: Units, undone: np.ndarray, editor: str, label: str, *, free: int | None = None
) -> Edit:
    energy = float((undone**2) @ units.energy / units.total)
    undo = dict(zip(units.names, undone.tolist(), strict=True))
    outside = int(((undone < 0) | (undone > 1)).sum())
    notes = (f"{outside} of {len(undone)} units lie outside the way from base to aligned",) if outside else ()
    free = len(undone) if free is None else free
    return unit_edit(task.pair, editor, label, undo, energy=energy, free=free, notes=notes, level=units.level)
