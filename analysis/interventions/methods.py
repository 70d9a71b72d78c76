"""The interventions that stand beside the path in attribution.csv, sized for the pair at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.interventions.method_registry import METHODS, intervening
from taxlens.analysis.interventions.patching import patch_effects
from taxlens.analysis.interventions.shapley import EXACT_PLAYERS, shapley_effects
from taxlens.analysis.scoring.evaluator import MEASURED, ChoiceMeasure
from taxlens.analysis.scoring.metrics import scored_metrics
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.interventions.effects import UnitEffects

LEADING, CONTROLS = 8, 4
"""Components that an intervention is run on where a pair has many: the leading ones by the path, and random others."""


def run_grafts(
    pair: ModelPair, measure: ChoiceMeasure, wanted: Sequence[str], units: Sequence[str], **options: Any
) -> list[UnitEffects]:
    """Effects of grafting and of restoring each component alone, those of the methods wanted."""
    grafts = graft_effects(pair, measure, units=units, **options)
    return [one for one in (grafts.graft, grafts.restore) if one.method in wanted]


def run_shapley(
    pair: ModelPair, measure: ChoiceMeasure, _wanted: Sequence[str], _units: Sequence[str], **options: Any
) -> list[UnitEffects]:
    """Shapley values with every changed component as a player."""
    return [shapley_effects(pair, measure, **options)]


def run_patches(
    pair: ModelPair, measure: ChoiceMeasure, wanted: Sequence[str], units: Sequence[str], **options: Any
) -> list[UnitEffects]:
    """Effects of patching each block's part, its own weights' and what it inherits apart."""
    blocks = [name for name in units if name.endswith((".attn", ".mlp"))]
    return [one for one in patch_effects(pair, measure, units=blocks, **options) if one.method in wanted]


def swap_tables(
    pair: ModelPair,
    suites: Sequence[Suite],
    found: Any,
    *,
    template: str = "plain",
    methods: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    leading: int = LEADING,
    controls: int = CONTROLS,
    seed: int = 0,
    bootstrap: int = 2000,
    progress: Progress = SILENT,
) -> dict[str, pd.DataFrame]:
    """Run the named interventions on components and return rows for the attribution tables.

    A pair of up to 12 changed components has all of them swapped; a larger one its leading components by the
    path (the largest |effect| over suites and metrics, each in units of its tax) and some random others as
    control. Shapley values take every changed component as a player: exact up to 10, else sampled.

    Args:
        pair: the two checkpoints.
        suites: suites with choices, all in one template.
        found: a path attribution of the same suites (its `to_frame()` ranks the components), or None.
        template: "plain" or "chat".
        methods: of `METHODS`; None: all that intervene.
        metrics: further metrics of the scores beside those of `ChoiceMeasure`.
        leading: components by rank.
        controls: random components beside them.
        seed: of the controls, the orders and the bootstrap.
        bootstrap: group-bootstrap draws.
        progress: told of each model scored.

    Returns:
        {"attribution": rows of attribution.csv, "closure": rows of closure.csv}; empty if the weights are equal.
    """
    wanted = intervening() if methods is None else tuple(methods)
    for method in wanted:
        one_of(method, intervening(), what="method")
    more = [name for name in metrics if name in scored_metrics()]
    measure = ChoiceMeasure(pair, tuple(suites), template=template, metrics=tuple(dict.fromkeys([*MEASURED, *more])))
    options: dict[str, Any] = {
        "groups": measure.groups, "template": template, "draws": bootstrap, "seed": seed, "progress": progress,
    }  # fmt: skip
    units = chosen_components(pair, found, leading=leading, controls=controls, seed=seed)
    if not units:
        return {}  # the two have the same weights: there is nothing to swap
    effects: list[UnitEffects] = []
    for run in dict.fromkeys(METHODS[name].run for name in METHODS if name in wanted):
        assert run is not None
        effects += run(pair, measure, wanted, units, **options)
    asked = measure.asked_apart()
    effects = [_with_apart(one, asked) for one in effects]
    return {
        "attribution": pd.concat([one.to_frame() for one in effects], ignore_index=True),
        "closure": pd.concat([one.closure_frame() for one in effects], ignore_index=True),
    }


def _with_apart(effects: UnitEffects, asked: Mapping[tuple[str, str], np.ndarray]) -> UnitEffects:
    """The same effects of the tax that is measured where each model is asked in its own prompt."""
    apart = {key: asked[key] - tax for key, tax in effects.taxes.items() if key in asked}
    taxes = {key: asked.get(key, tax) for key, tax in effects.taxes.items()}
    return dataclasses.replace(effects, taxes=taxes, apart=apart)


def chosen_components(pair: ModelPair, found: Any, *, leading: int, controls: int, seed: int) -> list[str]:
    """Every changed component of a small pair; else the leading ones by the path and random others, in order."""
    difference = difference_of(pair)
    changed = [name for name, unit in difference.units("component").items() if difference.moved(unit)]
    if found is None or len(changed) <= EXACT_PLAYERS + 2:
        return changed
    frame = found.to_frame()
    frame = frame[(frame.level == "component") & frame.component.isin(changed)]
    strength = frame.assign(size=frame.share.abs()).groupby("component")["size"].max().reindex(changed).fillna(0.0)
    order = np.argsort(-strength.to_numpy(), kind="stable")
    rest = np.random.default_rng(seed).permutation(order[leading:])[:controls]
    return [changed[i] for i in sorted([*order[:leading], *rest])]
