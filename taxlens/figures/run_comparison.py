"""Runs side by side: the tax of each suite in every run."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import SERIES, Drawn, effect_label, interval_words, new_figure, paper_style, written
from taxlens.words.amounts import unit_of


def draw_comparison(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the tax of every suite and template as points with intervals, a marker a run.

    Args:
        frame: tax.csv of several runs with the column `run` [rows, columns].
        metric: which metric.
        width: inches.
    """
    rows = frame[frame["metric"] == metric].reset_index(drop=True)
    if rows.empty:
        have = ", ".join(sorted(set(frame["metric"].dropna())))
        raise UsageError(explain("nothing to draw.", [("metric", metric), ("in the tables", have)]))
    scale = unit_of(metric)[1]
    places = list(dict.fromkeys(zip(rows["suite"], rows["template"])))
    runs = list(dict.fromkeys(rows["run"]))
    with paper_style():
        figure = new_figure(width, 0.85 + (0.08 + 0.1 * len(runs)) * len(places))
        axes = figure.subplots()
        for number, (run, (colour, marker, _)) in enumerate(zip(runs, SERIES * (1 + len(runs) // len(SERIES)))):
            shift = (number - (len(runs) - 1) / 2) * 0.6 / max(len(runs), 2)
            part = rows[rows["run"] == run]
            at = [places.index(place) + shift for place in zip(part["suite"], part["template"])]
            axes.hlines(at, part["low"] * scale, part["high"] * scale, color=colour, linewidth=1.1)
            axes.plot(part["tax"] * scale, at, color=colour, marker=marker, linestyle="none", markersize=4, label=run)
        for y in range(1, len(places)):
            axes.axhline(y - 0.5, color="#e5e5e5", linewidth=0.4, zorder=0)
        axes.axvline(0, color="black", linewidth=0.6)
        kinds = rows.set_index(["suite", "template"])["kind"].to_dict()
        names = [f"{s}, {t}" + (" (benefit)" if kinds[s, t] == "benefit" else "") for s, t in places]
        axes.set_yticks(range(len(places)), names)
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlabel(effect_label("tax in", metric, width=width))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2 if width < 4.5 else 4)
    low, high = int(rows["n_items"].min()), int(rows["n_items"].max())
    caption = (
        f"Tax in {written(metric)} of each suite in {len(runs)} runs: {', '.join(runs)}. "
        f"{interval_words(low if low == high else f'{low} to {high}', int(rows['n_groups'].max()))} at most; on benefit suites "
        "a negative value is what alignment was for."
    )
    columns = ["run", "suite", "kind", "template", "metric", "tax", "low", "high", "n_items", "n_groups"]
    return Drawn(figure, rows[columns], caption)
