"""What is said of a run's frontier: the price of getting the loss back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.frontier.orders import ORDERS
from taxlens.words.latex_text import booktabs, escaped, number, span
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, capital, main_metric

if TYPE_CHECKING:
    from rich.table import Table

RETURNED = 0.05
"""Share of the tax that a plan must return to be named where none is recommended."""
KEPT = 0.95
"""Share of the benefit that a plan must keep to be named where none is recommended."""


def frontier_clauses(run: RunView, suite: str) -> list[str]:
    """Return the price, in the sentence of the suite that lost most."""
    return [said.rstrip(".") for said in _price(run, main_metric(run))] if suite == by_loss(run)[0] else []


def frontier_closing(run: RunView) -> list[str]:
    """Return the price as a sentence of its own, where no capability suite has one."""
    return [] if by_loss(run) else [capital(said) for said in _price(run, main_metric(run) or "probability")]


def _price(run: RunView, metric: str) -> list[str]:
    plan = (run.manifest.get("frontier") or {}).get("recommended")
    if not run.has("frontier"):
        return []
    frame = run.table("frontier")
    rows = frame[(frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    if rows.empty:
        return []
    if plan and (rows["plan"] == plan).any():
        row, start = rows[rows["plan"] == plan].iloc[0], "undoing"
    else:
        single = rows[(rows["draw"] < 0) & ~rows["plan"].str.contains("-without-")] if "draw" in rows else rows[:0]
        keeping = single[(_kept(single) >= KEPT) & (single["returned"] >= RETURNED)]
        if keeping.empty:
            return [f"no plan that was measured returns {RETURNED:.0%} of it and keeps {KEPT:.0%} of the benefit."]
        row, start = (
            keeping.loc[keeping["returned"].idxmax()],
            f"of the plans that keep {KEPT:.0%} of the benefit, undoing",
        )
    kept = f", keeping {100 * row['benefit_kept']:.0f} % of the benefit" if "benefit_kept" in row else ""
    kept += f" and {100 * row['harm_kept']:.0f} % of harm alone" if "harm_kept" in row else ""
    share, returned = f"{100 * row['share_undone']:.1f} %", f"{100 * row['returned']:.0f} %"
    span = f"[{100 * row['returned_low']:.0f}, {100 * row['returned_high']:.0f}]"
    named = f"{start} {share} of the update's units ({row['plan']})"
    return [f"{named} returns {returned} {span} of the tax on held-out items{kept}."]


def frontier_limits(run: RunView) -> list[str]:
    """Return what was held out."""
    if not run.has("frontier"):
        return []
    frame = run.table("frontier")
    kinds = ", ".join(sorted(set(frame["held_out"].dropna()))) if "held_out" in frame else "items"
    return [
        "Plans were chosen on one half of the items and measured on the other; held out are "
        f"{kinds}. Returned shares are of the summed tax of the suites that lost."
    ]


def frontier_terminal(run: RunView) -> Iterator[Table]:
    """Yield the table of plans."""
    from taxlens.words.terminal_tables import plain_table

    if run.has("frontier"):
        title = "plans (tax returned and benefit, measured on held-out items)"
        yield plain_table(title, _plans(run.table("frontier")))


def _plans(frame: pd.DataFrame) -> pd.DataFrame:
    keep = ["plan", "share_undone", "energy_undone", "suite", "metric", "tax_predicted", "tax", "returned", "benefit"]
    return frame[[name for name in keep if name in frame]].head(40)


def frontier_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the frontier."""
    if not run.has("frontier"):
        return []
    frame, split = run.table("frontier"), run.config.split
    used = dict.fromkeys(frame["order"])
    orders = [ORDERS[name].words for name in used if name in ORDERS and ORDERS[name].words]
    unit = {"singular": "singular triples of the update", "head": "heads", "component": "components"}[
        str(frame["unit"].iloc[0])
    ]
    apart = " and ".join("gold answer" if key == "gold" else key for key in split.disjoint)
    return [
        f"\\paragraph{{Getting it back.}} Plans undo {unit} in the order of their path effect on tax and benefit, "
        "chosen on one half of the items and measured on the other"
        f"{f', which shares no {apart} with it' if apart else ''}. The benefit is refusal log-odds on harmful minus "
        "those on harmless prompts. "
        f"Compared with: {'; '.join(orders)}. Re-weighting an update's singular values by gradients is published "
        f"\\citep{{tian2026surgery}}. "
        "Shares returned and kept are bootstrapped jointly by group."
    ]


def frontier_latex(run: RunView, metric: str) -> dict[str, str]:
    """Return the table of plans in LaTeX."""
    return {"frontier": _frontier(run, metric)} if run.has("frontier") else {}


def _frontier(run: RunView, metric: str) -> str:
    frame = run.table("frontier")
    rows = frame[(frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    single = rows[rows["draw"] < 0]
    shown = [[
        escaped(str(r.order).replace("_", " ")), number(r.share_undone, scale=100), number(r.energy_undone, scale=100),
        span(r.returned, r.returned_low, r.returned_high, scale=100, digits=0),
        span(r.benefit_kept, r.benefit_kept_low, r.benefit_kept_high, scale=100, digits=0),
    ] for r in single.itertuples()]  # fmt: skip
    drawn = rows[rows["draw"] >= 0]
    for _, part in drawn.groupby(drawn["plan"].str.replace(r"-d\d+$", "", regex=True), sort=False):
        values = [part[c] for c in ("returned", "benefit_kept")]
        cells = [
            f"{number(v.mean(), scale=100, digits=0)} ({number(v.min(), scale=100, digits=0)} to "
            f"{number(v.max(), scale=100, digits=0)})"
            for v in values
        ]
        shares = [number(part[c].mean(), scale=100) for c in ("share_undone", "energy_undone")]
        shown.append([f"random, {len(part)} draws", *shares, *cells])
    caption = (
        f"Parts of the update undone, in each order: share of the tax in {escaped(metric)} returned and of the "
        "benefit kept (\\%), measured on held-out items; "
        "brackets: 95\\,\\% joint intervals by group bootstrap; random draws have the energy of the path plan: mean "
        "(smallest to largest)."
    )
    heads = ["order", "units undone (\\%)", "energy (\\%)", "tax returned", "benefit kept"]
    return booktabs(heads, shown, caption=caption, label="tab:frontier")


def _kept(plans: pd.DataFrame) -> pd.Series:
    """What plans are held to: the benefit or the refusals of harm alone, whichever is less (runs of before have the first)."""
    return plans[[name for name in ("benefit_kept", "harm_kept") if name in plans]].min(axis=1)
