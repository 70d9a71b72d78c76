"""What a steering vector does to the benefit as well as to the tax, beside random directions of the same size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from taxlens.analysis.scoring.evaluator import ChoiceMeasure, Values
from taxlens.core.stats.intervals import Interval
from taxlens.core.stats.ratios import joint_mean, joint_ratio

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.frontier.front import Benefit
    from taxlens.analysis.interventions.steering import Steering


def steered_benefit(
    pair: ModelPair, steering: Steering, benefit: Benefit, suites: Mapping[str, Suite], *, template: Mapping[str, str],
    draws: int = 1000, seed: int = 0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """The selective benefit of the steered model, in nats and as a share of what alignment raised.

    Args:
        pair: the two checkpoints.
        steering: fitted on another suite.
        benefit: what alignment was for.
        suites: its suites by name.
        template: suite name to template.
        draws, seed: of the group bootstrap and of the random directions.

    Returns:
        "benefit" and "benefit (random)", each with nats, kept (1: as aligned, 0: as the base), low, high. The share
        is left out where alignment did not raise the benefit.
    """
    asked = [suites[name] for name in benefit.suites]
    measure = ChoiceMeasure(pair, tuple(asked), template=template, metrics=("margin",))
    base, aligned = measure(pair.base.model), measure(pair.aligned.model)
    groups = benefit.groups(measure.groups)
    found = {}
    for name, one in (("benefit", steering), ("benefit (random)", steering.random(seed + 1))):
        with one.on(pair.aligned) as model:
            here = measure(model)
        nats = joint_mean(benefit.columns(here), groups, draws=draws, seed=seed)
        found[name] = {"nats": nats.value}
        kept = _kept(benefit, here, base, aligned, groups, draws=draws, seed=seed)
        if kept is not None:
            found[name] |= {"kept": kept.value, "low": kept.low, "high": kept.high}
    return found


def steering_rows(steering: Steering) -> list[tuple[object, ...]]:
    """The rows of steering.csv of one measured steering."""
    facts = steering.measured
    rows = []
    for control, returned, key in (("", "returned", "benefit"), ("random", "random", "benefit (random)")):
        effect = facts.get(key, {})
        address = [
            facts.get("suite", ""),
            facts.get("template", ""),
            facts.get("kind", "shift"),
            steering.site,
            steering.layer,
            steering.rank,
        ]
        address += [steering.scale, facts.get("state", ""), control, facts.get(returned, np.nan)]
        rows.append((*address, *(effect.get(name, np.nan) for name in ("nats", "kept", "low", "high"))))
    return rows


def _kept(
    benefit: Benefit, here: Values, base: Values, aligned: Values, groups: list[np.ndarray], *, draws: int, seed: int
) -> Interval | None:
    before, after, now = (benefit.columns(one) for one in (base, aligned, here))
    raised = [one - two for one, two in zip(after, before, strict=True)]
    if sum(float(column.mean()) for column in raised) <= 0:
        return None
    kept = [one - two for one, two in zip(now, before, strict=True)]
    return joint_ratio(kept, raised, groups, draws=draws, seed=seed)
