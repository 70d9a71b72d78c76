"""Every item of a suite: its score under the base against its score under the aligned model."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREY, ORANGE, Drawn, new_figure, paper_style, unit_of, written


def paired_items(items: pd.DataFrame, *, suite: str, metric: str, template: str) -> pd.DataFrame:
    """Return one row an item: item, group, base, aligned, and change (lost, won, kept) of its right answer.

    Raises:
        UsageError: if the table holds no such items.
    """
    here = (items["suite"] == suite) & (items["template"] == template)
    rows = items[here]
    if rows.empty or metric not in rows or rows[metric].isna().all():
        asked = [("suite", suite), ("template", template), ("metric", metric)]
        raise UsageError(explain("the run scored no items of that kind.", asked))
    wide = rows.pivot(index="item", columns="model", values=[metric, "correct"])
    found = pd.DataFrame({"base": wide[metric]["base"], "aligned": wide[metric]["aligned"]}).astype(float)
    was, now = wide["correct"]["base"].astype(float), wide["correct"]["aligned"].astype(float)
    found["change"] = "kept"
    found.loc[was > now, "change"] = "lost"
    found.loc[was < now, "change"] = "won"
    groups = rows.drop_duplicates("item").set_index("item")["group"]
    return found.join(groups).reset_index()


def draw_item_scatter(
    items: pd.DataFrame, *, suite: str, metric: str = "probability", template: str = "plain", width: float = 3.25
) -> Drawn:
    """Draw each item as a point: points below the diagonal lost, points above it gained.

    Args:
        items: items.csv [rows, columns].
        suite: which suite.
        metric: which metric; nll is drawn as it is, so that a loss lies above the diagonal.
        template: which template.
        width: inches.
    """
    found = paired_items(items, suite=suite, metric=metric, template=template)
    unit, scale = unit_of(metric)
    shown = {"kept": ("o", GREY, "right or wrong in both"), "lost": ("v", ORANGE, "lost"), "won": ("^", BLUE, "won")}
    with paper_style():
        figure = new_figure(width, width)
        axes = figure.subplots()
        low = float(min(found["base"].min(), found["aligned"].min())) * scale
        high = float(max(found["base"].max(), found["aligned"].max())) * scale
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.6, linestyle=":", zorder=1)
        for change, (marker, colour, words) in shown.items():
            mine = found[found["change"] == change]
            if len(mine):
                axes.scatter(
                    mine["base"] * scale, mine["aligned"] * scale, s=9, marker=marker, c=colour, alpha=0.7,
                    linewidths=0, label=f"{words} ({len(mine)})", zorder=2,
                )  # fmt: skip
        axes.set_xlabel(f"base: {written(metric)} ({unit})")
        axes.set_ylabel(f"aligned: {written(metric)} ({unit})")
        axes.set_aspect("equal")
        axes.legend(loc="best", handletextpad=0.2)
    caption = (
        f"Every item of {suite} ({template} prompt): {written(metric)} of the right answer under the base and under the "
        f"aligned model ({unit}), n = {len(found)} items. Points below the dotted line lost."
        if metric != "nll"
        else f"Every item of {suite} ({template} prompt): NLL of the right answer ({unit}), n = {len(found)} items. "
        "Points above the dotted line lost."
    )
    return Drawn(figure, found, caption)
