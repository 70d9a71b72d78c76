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
        row = here.iloc[0]
        sentences.append(
            _loss(str(suite), row) + _template_part(run, str(suite), metric) + _place(run, str(suite), metric)
        )
    return sentences or ["The run holds no capability suite."]


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
    return f"; of {total} from base, plain to aligned, chat, {part} are the template"


def _place(run: RunView, suite: str, metric: str) -> str:
    if not (run.has("attribution") and run.has("closure")):
        return "."
    frame, closure = run.table("attribution"), run.table("closure")
    here = (
        (frame["suite"] == suite)
        & (frame["metric"] == metric)
        & (frame["method"] == "path")
        & (frame["level"] == "component")
    )
    closed = closure[(closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")]
    if not here.any() or closed.empty or abs(closed["tax"].iloc[0]) < 0.005:
        return "."
    top = frame[here].sort_values("effect", ascending=closed["tax"].iloc[0] < 0, kind="stable").head(3)
    parts = ", ".join(f"{row.component} {100 * row.share:.0f} %" for row in top.itertuples())
    return f"; the weights' part sits in {parts} (residual {closed['residual'].iloc[0]:.1e})."
