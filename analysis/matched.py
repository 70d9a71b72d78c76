"""Orders compared where they keep the same of the benefit: how much of the tax each can return without going below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from taxlens.analysis.front import Frontier
    from taxlens.analysis.plans import Plan

MATCHED_COLUMNS = (
    "order", "plan", "n_units", "share_undone", "energy_undone", "returned", "returned_low", "returned_high",
    "benefit_kept", "benefit_kept_low", "benefit_kept_high", "path_ahead", "path_ahead_low", "path_ahead_high",
)  # fmt: skip
"""Columns of frontier_matched.csv."""


def matched_frame(front: Frontier, *, least: float | None = None, order: str = "path") -> pd.DataFrame:
    """Of every order, the plan that returns most of the tax among those that keep the benefit, beside the path's.

    Plans are taken by the point estimate of what they keep, on the held-out items, in every order alike; of random
    plans the best draw is taken, which flatters them. `path_ahead` is how much more of the tax the path's plan
    returns than the order's, resampled together. An order none of whose plans keeps enough has a blank plan:
    it returns nothing at this benefit.

    Args:
        front: the measured frontier.
        least: share of the benefit to keep; by default the frontier's margin.
        order: the order that the others are compared with.

    Returns:
        One row an order, columns `MATCHED_COLUMNS`.
    """
    least = front.margin if least is None else least
    best: dict[str, Plan | None] = {}
    for plan in front.plans:
        if plan.left_out:
            continue
        best.setdefault(plan.order, None)
        if front.benefit_kept(plan.name).value < least:
            continue
        now = best[plan.order]
        if now is None or front.returned(plan.name).value > front.returned(now.name).value:
            best[plan.order] = plan
    mine = best.get(order)
    rows = [_row(front, name, plan, mine) for name, plan in best.items()]
    return pd.DataFrame(rows, columns=list(MATCHED_COLUMNS)).astype({"n_units": "Int64"})


def _row(front: Frontier, order: str, plan: Plan | None, mine: Plan | None) -> tuple[object, ...]:
    if plan is None:
        return (order, "", pd.NA, *[np.nan] * (len(MATCHED_COLUMNS) - 3))
    returned, kept = front.returned(plan.name), front.benefit_kept(plan.name)
    row = [order, plan.name, plan.n_units, plan.share_undone, plan.energy_undone]
    row += [returned.value, returned.low, returned.high, kept.value, kept.low, kept.high]
    if mine is None or mine is plan:
        return (*row, np.nan, np.nan, np.nan)
    ahead = front.ahead(mine.name, plan.name)
    return (*row, ahead.value, ahead.low, ahead.high)
