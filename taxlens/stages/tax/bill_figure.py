"""The alignment tax bill as a figure: the four taxes side by side, each in its own unit, with its intervals."""

from __future__ import annotations

import pandas as pd

from taxlens.analysis.answers.bill import TAXES
from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREY, Drawn, interval_words, new_figure, paper_style

_TITLES = {
    "benchmark": "benchmark",
    "over_refusal": "over-refusal",
    "versatility": "versatility",
    "inference": "inference",
}
_SHOWN = ("accuracy", "exact_match", "refusal_rate", "entropy", "tokens")
"""One measure of each tax is drawn: panels have one unit each."""
MOST = 12
"""Rows that a panel shows at most, the largest costs; the table has all."""


def draw_bill(frame: pd.DataFrame, *, width: float = 5.5) -> Drawn:
    """Draw what alignment cost: a panel a tax, a row a suite and template, positive is loss.

    Args:
        frame: bill.csv [rows, columns].
        width: inches.

    Raises:
        UsageError: the table has no row that is drawn.
    """
    rows = frame[frame["measure"].isin(_SHOWN)]
    taxes = [name for name in TAXES if (rows["tax"] == name).any()]
    if not taxes:
        raise UsageError(explain("nothing to draw.", [("measures", ", ".join(_SHOWN))]))
    parts = [_panel(rows[rows["tax"] == name]) for name in taxes]
    sizes = [len(part) for part in parts]
    with paper_style():
        figure = new_figure(width, 0.5 + 0.55 * len(taxes) + 0.22 * sum(sizes))
        panels = figure.subplots(
            len(taxes), 1, squeeze=False, gridspec_kw={"height_ratios": [size + 0.8 for size in sizes]}
        )
        for axes, name, part in zip(panels[:, 0], taxes, parts):
            scale = 100.0 if part["unit"].iloc[0] == "points" else 1.0
            places = range(len(part))
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.hlines(places, part["low"] * scale, part["high"] * scale, color=BLUE, linewidth=1.2)
            axes.plot(part["cost"] * scale, places, marker="o", color=BLUE, linestyle="", markersize=4)
            axes.set_yticks(places, [f"{row.suite}, {row.template}" for row in part.itertuples()])
            axes.set_ylim(len(part) - 0.5, -0.5)
            axes.set_xlabel(
                f"{_TITLES[name]} ({', '.join(dict.fromkeys(part['measure'])).replace('_', ' ')}), {part['unit'].iloc[0]}"
            )
    drawn = pd.concat(parts, ignore_index=True)
    counts = interval_words(
        (int(drawn["n_items"].min()), int(drawn["n_items"].max())),
        (int(drawn["n_groups"].min()), int(drawn["n_groups"].max())),
    )
    caption = f"What alignment cost, tax by tax; to the right is loss. {counts}."
    return Drawn(figure, drawn, caption)


def _panel(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel, largest cost first."""
    return part.sort_values("cost", ascending=False, kind="stable").head(MOST).reset_index(drop=True)
