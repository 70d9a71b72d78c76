"""Nulls (P9): benign tunings, in which nothing may be found, and plans for what is not taxed, which may move nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedModel

from benchmarks.truth.ground import made, pair_of, remembered, suite_of
from benchmarks.truth.methods import METRIC
from benchmarks.truth.plants.parts import Weights, add, halved, players, weights_of
from benchmarks.truth.plants.plants import Plant
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.worlds.families import benign
from benchmarks.truth.worlds.world import TASKS, World
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.weights.interpolation import mixture
from taxlens.core.stats.intervals import sum_intervals

MARGIN = 0.01
"""A loss below one point of probability is no tax."""


def null_pair(model: PreTrainedModel, world: World, *, seed: int, steps: int, items: int) -> dict[str, Any]:
    """What path attribution says of a pair that differs by a benign tuning of random components."""

    def make() -> dict[str, Any]:
        rng = np.random.default_rng([seed, 61])
        parts = [p for p in players(model) if p not in ("embed", "unembed")]
        chosen = sorted(rng.choice(parts, size=4, replace=False).tolist())
        size = float(rng.uniform(2.0, 6.0))
        change = made(
            "null", lambda: benign(model, world, components=chosen, size=size, steps=steps, seed=seed), seed, steps
        )
        pair = pair_of(model, halved(add(weights_of(model), change)), name="null")
        suite = suite_of("facts", items=items)
        found = attribute(pair, suite, metrics=(METRIC,), levels=("component",), bootstrap=10, tokens=False)
        names, effects = found.effects(suite.name, METRIC)
        groups = [item.group for item in suite.items]
        low, high = sum_intervals(effects, groups, draws=1000, seed=seed)
        tax_low, tax_high = sum_intervals(effects.sum(1, keepdims=True), groups, draws=1000, seed=seed)
        mean = effects.mean(0)
        return {
            "components": chosen,
            "size": size,
            "tax": float(found.taxes(suite.name, METRIC).mean()),
            "tax_interval": [float(tax_low[0]), float(tax_high[0])],
            "largest": float(np.abs(mean).max()),
            "false_tax": bool(tax_low[0] > MARGIN),
            "false_components": [n for n, lo in zip(names, low) if lo > MARGIN],
            "any_interval_off_zero": int(((low > 0) | (high < 0)).sum()),
            "moved": int((np.abs(effects).max(0) > 0).sum()),
        }

    return remembered("null", make, seed, steps, items)


UNTAXED = "comparison"
"""The suite that null plans are made for."""


def null_plan(
    model: PreTrainedModel, world: World, plant: Plant, *, share: float = 0.025, items: int = 96, draws: int = 3
) -> dict[str, Any]:
    """What undoing the neurons most to blame for a suite that is not taxed does to every suite.

    Args:
        model: the base.
        world: its world.
        plant: a plant that taxes facts.
        share: of all neurons, to undo.
        items: items that the plan is made from.
        draws: random plans of the same size beside it.

    Returns:
        Tax of the suite that was asked about, how many neurons were undone, and by suite how far the plan moved
        the probability of the right choice (of the refusal, for harm), and how far random plans did, in size.
    """
    pair = pair_of(model, plant.aligned, name="null-plan")
    suite = suite_of(UNTAXED, items=items)
    found = attribute(
        pair, suite, metrics=(METRIC,), levels=("component", "neuron"), neurons=10_000, bootstrap=10, tokens=False
    )
    ranked = found.ranked(suite.name, METRIC, level="neuron", anyway=True)
    chosen = [name for name, _ in ranked[: round(share * len(ranked))]]
    rng, names = np.random.default_rng(0), [name for name, _ in ranked]
    drawn = [rng.choice(names, size=len(chosen), replace=False).tolist() for _ in range(draws)]
    before = _on_suites(model, world, plant.aligned)
    moves = []
    for undone in (chosen, *drawn):
        with mixture(pair, dict.fromkeys(undone, 1.0)) as mixed:
            after = _on_suites(model, world, {name: value.detach() for name, value in mixed.named_parameters()})
        moves.append({task: after[task] - before[task] for task in TASKS})
    moved, chance = moves[0], {task: float(np.mean([abs(m[task]) for m in moves[1:]])) for task in TASKS}
    tax = float(found.taxes(suite.name, METRIC).mean())
    return {"tax": tax, "undone": len(chosen), "units": len(ranked), "moved": moved, "random": chance}


def _on_suites(model: PreTrainedModel, world: World, weights: Weights) -> dict[str, float]:
    """Mean probability of the right choice by suite; of the refusal, for harm."""
    found = {task: mean_marks(model, weights, exam(world, task)) for task in TASKS}
    return {task: marks["refusal" if task == "harm" else METRIC] for task, marks in found.items()}
