"""What a net tax hides: weights against template, and items lost against items won."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Drawn,
    effect_label,
    new_figure,
    paper_style,
    written,
)
from taxlens.words.amounts import unit_of

_PARTS = (("weights", BLUE, ""), ("template", ORANGE, "////"), ("interaction", GREEN, "...."))


def draw_two_by_two(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw each suite's total as the sum of weights, template and interaction, with every interval.

    Args:
        frame: tax_2x2.csv [rows, columns].
        metric: which metric's rows to draw.
        width: inches.

    Raises:
        UsageError: if the table has no row of that metric.
    """
    rows = frame[frame["metric"] == metric].reset_index(drop=True)
    if rows.empty:
        raise UsageError(explain("nothing to draw.", [("metric", metric)]))
    total = rows[rows["effect"] == "total"].set_index("suite")["value"]
    suites = list(total.sort_values(ascending=False).index)
    panels = [part for part in ([s for s in suites if total[s] >= 0], [s for s in suites if total[s] < 0]) if part]
    with paper_style():
        figure = new_figure(width, 0.5 + 0.35 * len(panels) + 0.42 * len(suites))
        heights = [len(part) + 0.8 for part in panels]
        grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, part in zip(grid, panels, strict=True):
            _parts_of(axes, rows, part, metric)
        grid[-1].set_xlabel(effect_label("change in", metric, width=width))
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2 if width < 4.5 else 4)
    caption = (
        f"Is it the weights or the template? The change in {written(metric)} from base with the plain prompt to aligned with the "
        "chat prompt is the sum of the weights' effect (both plain), the template's (both base) and their interaction. "
        f"{'Suites that gained have a panel of their own. ' if len(panels) > 1 else ''}"
        "Whiskers: 95 % intervals by group bootstrap."
    )
    return Drawn(figure, rows[["suite", "metric", "effect", "value", "low", "high"]], caption)


def _parts_of(axes: Axes, rows: pd.DataFrame, suites: list[str], metric: str) -> None:
    """Draw the parts of some suites' change as bars with their intervals."""
    scale = unit_of(metric)[1]
    for y, suite in enumerate(suites):
        for place, (part, colour, hatch) in enumerate([*_PARTS, ("total", GREY, "")]):
            row = rows[(rows["suite"] == suite) & (rows["effect"] == part)]
            if row.empty:
                continue
            at, first = y + (place - 1.5) * 0.19, row.iloc[0]
            label = part if y == 0 else None
            value = first["value"] * scale
            axes.barh(at, value, height=0.17, color=colour, hatch=hatch, edgecolor="white", label=label)
            axes.plot([first["low"] * scale, first["high"] * scale], [at, at], color="black", linewidth=0.7)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(suites)), suites)
    axes.set_ylim(len(suites) - 0.45, -0.55)


def draw_lost_won(frame: pd.DataFrame, *, width: float = 5.5) -> Drawn:
    """Draw how many items each suite lost (right to wrong) and won (wrong to right).

    Args:
        frame: tax.csv [rows, columns].
        width: inches.
    """
    rows = frame[frame["metric"] == "accuracy"].reset_index(drop=True)
    if rows.empty:
        raise UsageError(explain("nothing to draw.", [("metric", "accuracy")]))
    with paper_style():
        figure = new_figure(width, 0.8 + 0.2 * len(rows))
        axes = figure.subplots()
        axes.barh(range(len(rows)), -rows["lost"], color=ORANGE, hatch="////", edgecolor="white", label="lost")
        axes.barh(range(len(rows)), rows["won"], color=BLUE, label="won")
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(rows)), [f"{r.suite}, {r.template}" for r in rows.itertuples()])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set_xlabel("items lost | items won")
        figure.legend(loc="outside upper center", ncols=2)
    caption = "Items lost (right to wrong) and won (wrong to right) by accuracy; a net tax near zero can hide both."
    return Drawn(figure, rows[["suite", "template", "lost", "won", "n_items", "n_groups"]], caption)
