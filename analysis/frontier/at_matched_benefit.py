"""Orders compared where they keep the same of the benefit: how much of the tax each can return without going below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from taxlens.analysis.frontier.frontier_tables import FRONTIER_MATCHED
from taxlens.analysis.frontier.plans import Plan
from taxlens.core.stats.intervals import Interval


def matched_frame(
    plans: Sequence[Plan],
    *,
    returned: Callable[[str], Interval],
    kept: Callable[[str], Interval],
    harm: Callable[[str], Interval],
    ahead: Callable[[str, str], Interval],
    least: float,
    order: str = "path",
) -> pd.DataFrame:
    """Of every order, the plan that returns most of the tax among those that keep the benefit, beside the path's.

    Plans are taken by the point estimate of what they keep, on the held-out items, in every order alike; of random
    plans the best draw is taken, which flatters them. `path_ahead` is how much more of the tax the path's plan
    returns than the order's, resampled together. An order none of whose plans keeps enough has a blank plan:
    it returns nothing at this benefit.

    Args:
        plans: the plans that were measured.
        returned: by a plan's name, the share of all taxes that it returns.
        kept: by a plan's name, the share of the benefit that it keeps.
        harm: by a plan's name, the share of the refusals of harm alone that it keeps.
        ahead: of two names, how much more of the taxes the first returns.
        least: share of the benefit, and of harm alone, to keep.
        order: the order that the others are compared with.

    Returns:
        One row an order, with the columns of `FRONTIER_MATCHED`.
    """
    best: dict[str, Plan | None] = {}
    for plan in plans:
        if plan.left_out:
            continue
        best.setdefault(plan.order, None)
        if min(kept(plan.name).value, harm(plan.name).value) < least:
            continue
        now = best[plan.order]
        if now is None or returned(plan.name).value > returned(now.name).value:
            best[plan.order] = plan
    mine, rows = best.get(order), []
    for name, plan in best.items():
        if plan is None:
            rows.append((name, "", pd.NA, *[np.nan] * (len(FRONTIER_MATCHED.names) - 3)))
            continue
        lead = None if mine is None or mine is plan else ahead(mine.name, plan.name)
        ends = [*_ends(returned(plan.name)), *_ends(kept(plan.name)), *_ends(lead), *_ends(harm(plan.name))]
        rows.append((name, plan.name, plan.n_units, plan.share_undone, plan.energy_undone, *ends))
    return FRONTIER_MATCHED.frame(rows).astype({"n_units": "Int64"})


def _ends(interval: Interval | None) -> tuple[float, float, float]:
    return (np.nan, np.nan, np.nan) if interval is None else (interval.value, interval.low, interval.high)
