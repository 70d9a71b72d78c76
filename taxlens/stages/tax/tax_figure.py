"""The forest of taxes: how much each suite lost, with its interval, in each template."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

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
    rows = by_tax(rows)
    panels = [part for _, part in rows.groupby(rows["kind"] == "benefit", sort=True)]
    with paper_style():
        figure = new_figure(width, 0.4 + 0.35 * len(panels) + 0.2 * len(rows))
        heights = [len(part) + 1.0 for part in panels]
        grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, part in zip(grid, panels, strict=True):
            benefit = (part["kind"] == "benefit").all()
            _forest(axes, part, metric, benefit=bool(benefit))
            axes.set_xlabel(_benefit_label(metric) if benefit else effect_label("tax in", metric, width=width))
    plotted = rows[["suite", "kind", "template", "metric", "tax", "low", "high", "n_items", "n_groups"]]
    spans = interval_words(_span(rows["n_items"]), _span(rows["n_groups"]))
    caption = (
        f"Tax in {written(metric)} of each suite{f' ({names})' if names else ''}: base minus aligned on the same items, "
        f"positive is loss; the number is at the right. {spans}. Circles: plain prompt; squares: chat."
        + (
            " Lower panel: what alignment was for, aligned minus base, so that a gain is positive."
            if len(panels) > 1
            else ""
        )
    )
    return Drawn(figure, plotted, caption)


def by_tax(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows [suite, kind, template, tax, ...] with the suite that lost most first and benefit suites last."""
    largest = rows.groupby("suite")["tax"].transform("max")
    order = rows.assign(_benefit=rows["kind"] == "benefit", _largest=-largest, _place=range(len(rows)))
    return order.sort_values(["_benefit", "_largest", "suite", "_place"], kind="stable")[rows.columns].reset_index(
        drop=True
    )


def _forest(axes: Axes, rows: pd.DataFrame, metric: str, *, benefit: bool) -> None:
    """Draw points with intervals, a row each, and the number at the right edge; benefits with their sign turned."""
    scale = unit_of(metric)[1] * (-1 if benefit else 1)
    digits = 1 if abs(scale) == 100 else 2
    for y, row in enumerate(rows.itertuples()):
        colour, marker = (BLUE, "o") if row.template == "plain" else (ORANGE, "s")
        axes.plot([row.low * scale, row.high * scale], [y, y], color=colour, linewidth=1.2)
        axes.plot([row.tax * scale], [y], marker=marker, color=colour, markersize=4)
        axes.text(
            1.01, y, f"{row.tax * scale:+.{digits}f}", transform=axes.get_yaxis_transform(), va="center", fontsize=7
        )
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), [f"{r.suite}, {r.template}" for r in rows.itertuples()])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.08)


def _benefit_label(metric: str) -> str:
    return f"gain in {written(metric)} ({unit_of(metric)[0]})"


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
