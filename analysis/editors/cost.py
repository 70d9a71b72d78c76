"""What a comparison of editors will take, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence

from taxlens.analysis.editors.kinds.optimise import STEPS
from taxlens.analysis.editors.kinds.repair import RECIPES
from taxlens.analysis.editors.objective import Draw
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.scoring.budget import TRAINING_PASSES, minutes_for

GRADIENTS = 7
"""Gradients of the path's attribution."""
_STEPPED = {"joint": STEPS, "mask": STEPS, "per_layer": STEPS}
_AVERAGED = {"hma": 30, "hma_layers": 30, "localize": 30}
"""Steps a setting."""


def comparison_minutes(task: EditTask, editors: Sequence[str], *, tries: int, answer: int = 0) -> float:
    """Estimated minutes of fitting, validating and measuring editors, on two cores at the stated rate.

    Args:
        task: items and roles.
        editors: names.
        tries: settings of each.
        answer: tokens of a generated answer; 0: none.
    """
    lengths = {
        part: {name: _tokens(task, part, name) for name in task.suites} for part in ("train", "validation", "held")
    }
    draw = Draw()
    sizes = dict.fromkeys(task.taxed, draw.taxed) | {task.harm: draw.harm, task.harmless: draw.harmless}
    step = sum(sizes[name] * lengths["train"][name] / len(task.train[name]) for name in task.suites)
    look = sum(min(1.0, 12 / len(task.validation[name])) * lengths["validation"][name] for name in task.suites)
    every = sum(lengths["train"].values())
    total = 2.0 * sum(lengths["validation"].values()) + 2.0 * sum(lengths["held"].values())
    for name in editors:
        steps = _STEPPED.get(name, RECIPES[name].steps if name in RECIPES else _AVERAGED.get(name, 0) * tries)
        total += steps * step * TRAINING_PASSES + (steps / 6) * look
        total += {"path": GRADIENTS * 2.5 + 1, "one_gradient": 2.5, "spectral_surgery": 2.5}.get(name, 0.0) * every
        total += tries * sum(lengths["validation"].values()) + sum(lengths["held"].values())
    asked = sum(len(task.held[name]) for name in task.suites)
    prompts = sum(lengths["held"].values()) / 2
    total += (len(editors) + 2) * (asked * answer + (prompts if answer else 0))
    return minutes_for(task.pair, total)


def _tokens(task: EditTask, part: str, name: str) -> int:
    """Tokens of two choices of every item."""
    suite = getattr(task, part)[name]
    lengths: dict[int, list[int]] = {}
    for row in task.prompting(suite).rows(suite):
        lengths.setdefault(row.item, []).append(len(row.ids))
    return sum(sum(sorted(mine)[-2:]) for mine in lengths.values())
