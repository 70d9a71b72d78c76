"""The interventions that stand beside the path in attribution.csv, sized for the pair at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.interventions.patching import patch_effects
from taxlens.analysis.interventions.shapley import EXACT_PLAYERS, shapley_effects
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.interventions.effects import UnitEffects

METHODS = ("graft", "restore", "shapley", "patch_cause", "patch_carrier")
"""Methods of attribution.csv that intervene."""


def swap_tables(
    pair: ModelPair,
    suites: Sequence[Suite],
    found: Any,
    *,
    template: str = "plain",
    methods: Sequence[str] = METHODS,
    leading: int = 8,
    controls: int = 4,
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
        methods: of graft, restore, shapley, patch_cause, patch_carrier.
        leading: components by rank.
        controls: random components beside them.
        seed: of the controls, the orders and the bootstrap.
        bootstrap: group-bootstrap draws.
        progress: told of each model scored.

    Returns:
        {"attribution": rows of attribution.csv, "closure": rows of closure.csv}; empty if the weights are equal.
    """
    for method in methods:
        one_of(method, METHODS, what="method")
    measure = ChoiceMeasure(pair, tuple(suites), template=template)
    options: dict[str, Any] = {
        "groups": measure.groups, "template": template, "draws": bootstrap, "seed": seed, "progress": progress,
    }  # fmt: skip
    units = chosen_components(pair, found, leading=leading, controls=controls, seed=seed)
    if not units:
        return {}  # the two have the same weights: there is nothing to swap
    effects: list[UnitEffects] = []
    if {"graft", "restore"} & set(methods):
        grafts = graft_effects(pair, measure, units=units, **options)
        effects += [one for one in (grafts.graft, grafts.restore) if one.method in methods]
    if "shapley" in methods:
        effects.append(shapley_effects(pair, measure, **options))
    if {"patch_cause", "patch_carrier"} & set(methods):
        blocks = [name for name in units if name.endswith((".attn", ".mlp"))]
        effects += [one for one in patch_effects(pair, measure, units=blocks, **options) if one.method in methods]
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
