"""The forest of taxes: how much each suite lost, with its interval, in each template."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    Drawn,
    effect_label,
    interval_words,
    new_figure,
    paper_style,
    written,
)
from taxlens.words.amounts import unit_of


def draw_tax(frame: pd.DataFrame, *, width: float = 5.5, metric: str = "probability", names: str = "") -> Drawn:
    """Draw the tax of every suite and template as a point with its interval.

    Args:
        frame: tax.csv [rows, columns].
        width: inches.
        metric: which metric's rows to draw.
        names: "base against aligned" for the caption.

    Raises:
        UsageError: if the table has no row of that metric.
    """
    rows = frame[frame["metric"] == metric].reset_index(drop=True)
    if rows.empty:
        have = [("metric", metric), ("in the table", ", ".join(sorted(set(frame["metric"]))))]
        raise UsageError(explain("nothing to draw.", have))
    scale = unit_of(metric)[1]
    with paper_style():
        figure = new_figure(width, 0.75 + 0.24 * len(rows))
        axes = figure.subplots()
        for y, row in enumerate(rows.itertuples()):
            benefit = row.kind == "benefit"
            colour, marker = (GREY, "D") if benefit else (BLUE, "o") if row.template == "plain" else (ORANGE, "s")
            axes.plot([row.low * scale, row.high * scale], [y, y], color=colour, linewidth=1.2)
            axes.plot([row.tax * scale], [y], marker=marker, color=colour, markersize=4)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(rows)), [f"{r.suite}, {r.template}" for r in rows.itertuples()])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(effect_label("tax in", metric, width=width))
    plotted = rows[["suite", "kind", "template", "metric", "tax", "low", "high", "n_items", "n_groups"]]
    spans = interval_words(_span(rows["n_items"]), _span(rows["n_groups"]))
    caption = (
        f"Tax in {written(metric)} of each suite{f' ({names})' if names else ''}: base minus aligned on the same items, "
        f"positive is loss. {spans}. Circles: plain prompt; squares: chat; diamonds: benefit suites, "
        "where a negative value is what alignment was for."
    )
    return Drawn(figure, plotted, caption)


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
