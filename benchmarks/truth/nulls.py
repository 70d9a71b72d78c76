"""Null pairs (P9): benign tunings, in which nothing may be found."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedModel

from benchmarks.truth.families import benign
from benchmarks.truth.ground import made, pair_of, remembered, suite_of
from benchmarks.truth.methods import METRIC
from benchmarks.truth.parts import add, halved, players, weights_of
from taxlens.analysis.path import attribute
from taxlens.core.stats import sum_intervals
from taxlens.demo.world import World

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
