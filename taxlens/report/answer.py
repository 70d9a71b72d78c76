"""The answer in a sentence, from a run's tables."""

from __future__ import annotations

import pandas as pd

from taxlens.view import RunView

_NATS = ("nll", "margin")


def amount(value: float, metric: str) -> str:
    """Return a loss as read aloud: "12.4 points", "0.31 nats"."""
    return f"{value:.3g} nats" if metric in _NATS else f"{100 * value:.1f} points"


def headline(run: RunView) -> list[str]:
    """Return the sentences that answer, most important first: loss, its place, its closure.

    Args:
        run: a finished run with at least its tax table.
    """
    if not run.has("tax"):
        return ["No tax was measured in this run."]
    tax = run.table("tax")
    metric = "probability" if "probability" in set(tax["metric"]) else str(tax["metric"].iloc[0])
    rows = tax[(tax["metric"] == metric) & (tax["kind"] == "capability")]
    sentences = []
    for suite, here in rows.groupby("suite", sort=False):
        name, row = str(suite), here[here["template"] == _localised(run, str(suite), here)].iloc[0]
        parts = (_loss(name, row), _template_part(run, name, metric), _place(run, name, metric), _state(run, name))
        sentences.append("; ".join(part for part in parts if part) + ".")
    return [*sentences, *_benefit(run, metric), *_price(run, metric)] or ["The run holds no capability suite."]


def _localised(run: RunView, suite: str, rows: pd.DataFrame) -> str:
    if run.has("closure"):
        closure = run.table("closure")
        found = closure.loc[closure["suite"] == suite, "template"]
        if len(found) and str(found.iloc[0]) in set(rows["template"]):
            return str(found.iloc[0])
    return str(rows["template"].iloc[0])


def _loss(suite: str, row: pd.Series) -> str:
    span = f"[{_bare(row['low'], row['metric'])}, {_bare(row['high'], row['metric'])}]"
    sure = row["low"] > 0 or row["high"] < 0
    if not sure:
        return (
            f"{suite}: no tax shown in {row['metric']} ({amount(row['tax'], row['metric'])} {span}, {row['template']})"
        )
    verb = "lost" if row["tax"] > 0 else "gained"
    return f"{suite} {verb} {amount(abs(row['tax']), row['metric'])} {span} of {row['metric']} ({row['template']})"


def _bare(value: float, metric: str) -> str:
    return f"{value:.3g}" if metric in _NATS else f"{100 * value:.1f}"


def _template_part(run: RunView, suite: str, metric: str) -> str:
    if not run.has("tax_2x2"):
        return ""
    frame = run.table("tax_2x2")
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)].set_index("effect")["value"]
    if not {"template", "total"} <= set(rows.index):
        return ""
    total, part = amount(rows["total"], metric), amount(rows["template"], metric)
    return f"of {total} from base, plain to aligned, chat, {part} are the template"


def _place(run: RunView, suite: str, metric: str) -> str:
    if not (run.has("attribution") and run.has("closure")):
        return ""
    frame, closure = run.table("attribution"), run.table("closure")
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & (frame["method"] == "path")
    here &= frame["level"] == "component"
    closed = closure[(closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")]
    if not here.any() or closed.empty or abs(closed["tax"].iloc[0]) < 0.005:
        return ""
    top = frame[here].sort_values("effect", ascending=closed["tax"].iloc[0] < 0, kind="stable").head(3)
    parts = ", ".join(f"{row.component} {100 * row.share:.0f} %" for row in top.itertuples())
    return f"the weights' part sits in {parts} (residual {closed['residual'].iloc[0]:.1e})"


def _state(run: RunView, suite: str) -> str:
    if not run.has("states"):
        return ""
    frame = run.table("states")
    overall = frame[(frame["suite"] == suite) & frame["layer"].isna()]
    return f"state: {overall['state'].iloc[0]}" if len(overall) else ""


def _benefit(run: RunView, metric: str) -> list[str]:
    frame = run.table("tax")
    rows = frame[(frame["metric"] == metric) & (frame["kind"] == "benefit")]
    said = []
    for suite, here in rows.groupby("suite", sort=False):
        row = here.iloc[-1]
        change, span = amount(-row["tax"], metric), f"[{_bare(-row['high'], metric)}, {_bare(-row['low'], metric)}]"
        said.append(f"What alignment was for: {suite} rose by {change} {span} of {metric} ({row['template']}).")
    return said


def _price(run: RunView, metric: str) -> list[str]:
    plan = (run.manifest.get("frontier") or {}).get("recommended")
    if not (plan and run.has("frontier")):
        return []
    frame = run.table("frontier")
    rows = frame[(frame["plan"] == plan) & (frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    if rows.empty:
        return []
    row = rows.iloc[0]
    kept = f", keeping {100 * row['benefit_kept']:.0f} % of the benefit" if "benefit_kept" in row else ""
    share, returned = f"{100 * row['share_undone']:.1f} %", f"{100 * row['returned']:.0f} %"
    span = f"[{100 * row['returned_low']:.0f}, {100 * row['returned_high']:.0f}]"
    return [
        f"Undoing {share} of the update's units ({plan}) returns {returned} {span} of the tax on held-out items{kept}."
    ]
