"""The restoration profile: what comes back when the base computes everything below a layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import GREY, SERIES, Drawn, new_figure, paper_style, written
from taxlens.words.amounts import unit_of


def draw_restoration_profile(
    frame: pd.DataFrame, *, metric: str = "probability", least: float = 0.02, width: float = 5.5
) -> Drawn:
    """Draw, by cut, the share of each suite's tax restored with its band, and the steps that sum to the tax.

    Args:
        frame: restoration.csv [rows, columns].
        metric: which metric.
        least: suites whose whole tax is smaller are left out of the shares (a ratio of small numbers).
        width: inches.
    """
    rows = frame[frame["metric"] == metric]
    if rows.empty:
        raise UsageError(explain("the run holds no restoration profile.", [("metric", metric)]))
    suites = [s for s, part in rows.groupby("suite", sort=False) if part["tax"].abs().max() >= least]
    suites = suites or list(dict.fromkeys(rows["suite"]))
    unit, scale = unit_of(metric)
    shown = rows[rows["suite"].isin(suites)]
    with paper_style():
        figure = new_figure(width, 2.4)
        left, right = figure.subplots(1, 2)
        for suite, (colour, marker, dash) in zip(suites, SERIES * (1 + len(suites) // len(SERIES))):
            part = shown[shown["suite"] == suite].sort_values("layer")
            left.fill_between(part["layer"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
            left.plot(part["layer"], part["restored"], color=colour, marker=marker, linestyle=dash, label=suite)
            right.plot(part["layer"], part["step"] * scale, color=colour, marker=marker, linestyle=dash)
        for axes, marks in ((left, (0, 1)), (right, (0,))):
            for mark in marks:
                axes.axhline(mark, color=GREY, linewidth=0.6)
            axes.set_xlabel("base below this layer")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        left.set_title("share of the tax restored", loc="left")
        right.set_title(f"step ({unit})", loc="left")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3 if width < 4.5 else 5)
    caption = (
        f"Restoration profile in {written(metric)}: the base's residual stream injected into the aligned model before each layer. "
        "Left: share of the tax that comes back; 0 where the damage is all above the cut, 1 where it is all below; bands: 95 % intervals "
        "by group bootstrap. Right: what each stretch between two cuts adds to the loss; with what lies below the first and above the last "
        "cut the steps sum to the tax."
    )
    columns = ["suite", "metric", "layer", "restored", "low", "high", "step", "step_low", "step_high"]
    return Drawn(figure, shown[columns].reset_index(drop=True), caption)
