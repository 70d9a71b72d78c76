"""The directions that the spectra found: what they are called, and what they are worth to each suite."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREY, ORANGE, Drawn, interval_words, new_figure, paper_style, written
from taxlens.words.amounts import unit_of

WORDS = {"ablate": "taken out of base", "inject": "base's put into aligned"}
NARROW = 4.0  # inches: below it panels stand one above the other


def draw_direction_effects(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw what the tested directions are worth to each suite, beside random subspaces of the same rank.

    Args:
        frame: direction_effects.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    rows = frame[frame["metric"] == metric]
    if rows.empty:
        wanted = [("metric", metric), ("tested", ", ".join(dict.fromkeys(frame["metric"])) or "nothing")]
        raise UsageError(explain("no direction was tested in that metric.", wanted))
    unit, scale = unit_of(metric)
    kinds = [kind for kind in WORDS if kind in set(rows["intervention"])]
    places = rows[["template", "layer"]].drop_duplicates()
    where = ", ".join(f"{row.template}, layer {int(row.layer)}" for row in places.itertuples())
    names = rows["suite"].astype(str)
    if len(places) > 1:
        names = names + ", " + rows["template"] + " " + rows["layer"].astype(int).astype(str)
    order = list(dict.fromkeys(names))
    with paper_style():
        narrow = width < NARROW
        shape = (len(kinds), 1) if narrow else (1, len(kinds))
        figure = new_figure(width, (0.75 + 0.2 * len(order)) * shape[0] + 0.1)
        grid = figure.subplots(*shape, sharey=True, squeeze=False).flat
        for axes, kind, colour in zip(grid, kinds, (BLUE, ORANGE)):
            part = rows[rows["intervention"] == kind]
            y = np.array([order.index(name) for name in names[part.index]])
            value, low, high = (part[c].to_numpy(dtype=float) * scale for c in ("value", "low", "high"))
            axes.errorbar(value, y, xerr=[value - low, high - value], fmt="o", color=colour, markersize=3, linewidth=1)
            axes.plot(part["random"] * scale, y, linestyle="none", marker="|", color=GREY, markersize=6)
            axes.plot(part["random_extreme"] * scale, y, linestyle="none", marker="x", color=GREY, markersize=3)
            axes.axvline(0, color=GREY, linewidth=0.6)
            axes.set_title(WORDS[kind], loc="left")
            axes.set_xlabel(f"loss in {written(metric)} ({unit})")
            axes.set_yticks(range(len(order)), order)
        grid[0].invert_yaxis()
    columns = [
        "suite",
        "template",
        "layer",
        "intervention",
        "metric",
        "value",
        "low",
        "high",
        "random",
        "random_extreme",
    ]
    shown = interval_words(int(rows["n_items"].max()), int(rows["n_groups"].max()))
    caption = (
        f"What the directions beyond the null of the spectra are worth, {metric}, positive is loss. At {where}. First: "
        f"base without them; second: aligned with base's coordinates along them. Bars: {shown}. "
        "Grey: random subspaces of the same rank, mean (bar) and the most extreme of five (cross)."
    )
    return Drawn(figure, rows[columns].reset_index(drop=True), caption)


def draw_direction_names(
    frame: pd.DataFrame, *, template: str | None = None, top: int = 4, most: int = 6, width: float = 5.5
) -> Drawn:
    """Draw the names of the directions that left their null furthest: tokens, probes and items at both ends.

    Args:
        frame: directions.csv [rows, columns].
        template: which template; the table's first if left out.
        top: names of each kind and end.
        most: directions.
        width: inches.
    """
    if template is not None and "template" in frame:
        frame = frame[frame["template"] == template]
    if frame.empty:
        raise UsageError(explain("no direction left its null: none is named.", [("template", template or "any")]))
    where = [c for c in ("template", "site", "layer", "spectrum", "rank") if c in frame]
    keys = [frame[where].iloc[0:0].columns.tolist(), *frame[where].drop_duplicates().to_numpy().tolist()][1:]
    keys = sorted(keys, key=lambda key: key[-1])[:most] if where else [[]]
    lines, kept = [], []
    for key in keys:
        part = frame[(frame[where] == key).all(axis=1)] if where else frame
        kept.append(part.groupby(["kind", "end"], sort=False).head(top))
        title = f"{key[-2]} {key[-1]}, {key[-4]}.{key[-3]}" if len(key) == 5 else ""
        lines += [(title, True), *((text, False) for text in _lines(kept[-1], most=int(20 * width)))]
    with paper_style():
        figure = new_figure(width, 0.2 + 0.145 * len(lines))
        figure.set_layout_engine("none")  # text alone: nothing to lay out
        axes = figure.add_axes((0.01, 0.0, 0.98, 1.0))
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(len(lines), 0))
        for place, (text, head) in enumerate(lines):
            axes.text(
                0 if head else 0.02, place + 0.5, text, va="center", fontsize=7, weight="bold" if head else "normal"
            )
    caption = (
        "Directions beyond the null of the spectra by name: tokens that a step along them promotes (z among all tokens), "
        "probes of base (correlation with their score), items at both ends (standard deviations). * within reach of chance."
    )
    return Drawn(figure, pd.concat(kept, ignore_index=True), caption)


def _lines(part: pd.DataFrame, *, most: int) -> list[str]:
    out = []
    for (kind, end), names in part.groupby(["kind", "end"], sort=False):
        texts = []
        for row in names.itertuples():
            chance = pd.notna(row.null) and abs(row.value) <= row.null
            shown = repr(row.name) if kind == "token" else str(row.name)
            shown = shown if len(shown) <= 26 else f"{shown[:25]}\N{HORIZONTAL ELLIPSIS}"
            texts.append(f"{shown.replace('$', chr(92) + '$')} {row.value:+.2g}{'*' if chance else ''}")
        line = f"{kind} {end}:  {',  '.join(texts)}"
        out.append(line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}")
    return out
