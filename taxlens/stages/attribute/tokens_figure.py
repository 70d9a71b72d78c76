"""Token strips: which tokens of an item the effect runs through."""

from __future__ import annotations

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import DIVERGING, Drawn, new_figure, paper_style
from taxlens.words.amounts import unit_of

SIZE = 6.5
"""Points of the tokens' type."""

ANSWERS = "[answers]"
"""Name of the cell that holds what runs through the tokens of the choices."""


def token_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return an item's strip: its prompt's tokens, summed over choices, then all tokens of the choices as one cell.

    The prompt's tokens are those that stand at the same place in every choice.

    Args:
        rows: rows of attribution_tokens.csv of one item and metric.

    Returns:
        token (index), text, effect; in order.
    """
    places = rows.groupby("token", sort=True).agg(
        kinds=("text", "nunique"), choices=("choice", "nunique"), text=("text", "first"), effect=("effect", "sum")
    )
    shared = (places["kinds"] == 1) & (places["choices"] == rows["choice"].nunique())
    kept = shared.cummin() if rows["choice"].nunique() > 1 else shared
    strip = places.loc[kept, ["text", "effect"]].reset_index()
    rest = float(places.loc[~kept, "effect"].sum())
    if (~kept).any():
        strip = pd.concat([strip, pd.DataFrame([(-1, ANSWERS, rest)], columns=strip.columns)], ignore_index=True)
    return strip


def draw_tokens(frame: pd.DataFrame, *, suite: str, items: tuple[str, ...], metric: str, width: float = 5.5) -> Drawn:
    """Draw each item as strips of tokens, coloured by their effect; a long item goes on in the next line.

    Args:
        frame: attribution_tokens.csv [rows, columns].
        suite: which suite.
        items: which items.
        metric: which metric.
        width: inches.
    """
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & frame["item"].isin(items)
    rows = frame[here & (frame["component"].fillna("") == "")]
    if rows.empty:
        wanted = [("suite", suite), ("items", ", ".join(items)), ("metric", metric)]
        raise UsageError(explain("the run holds no token effects of these items.", wanted))
    strips = pd.concat([token_rows(part).assign(item=item) for item, part in rows.groupby("item", sort=False)])
    unit, scale = unit_of(metric)
    most = float(strips["effect"].abs().max()) * scale or 1.0
    with paper_style():
        cells, lines, ticks = _set(
            strips, room=72 * (width - 0.35) - 6 * max(len(item) for item in strips["item"]) * 0.6
        )
        figure = new_figure(width, 0.45 + 0.19 * lines)
        axes = figure.subplots()
        norm, colours = Normalize(-most, most), colormaps[DIVERGING]
        for cell, (value, text) in zip(cells, zip(strips["effect"] * scale, _words(strips["text"]))):
            left, line, wide = cell
            axes.barh(line, wide, left=left, height=0.8, color=colours(norm(value)), edgecolor="white", linewidth=0.4)
            ink = "white" if abs(value) > 0.6 * most else "black"
            axes.text(
                left + wide / 2,
                line,
                text,
                ha="center",
                va="center_baseline",
                fontsize=SIZE,
                color=ink,
                parse_math=False,
            )
        axes.set_yticks(list(ticks.values()), list(ticks))
        axes.tick_params(left=False)
        axes.set_ylim(lines - 0.4, -0.6)
        axes.set_xlim(0, max(left + wide for left, _, wide in cells))
        axes.set_xticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        label = f"effect on {metric}: ±{most:.3g} {unit}" + ("; purple is loss" if width > 4.5 else "")
        axes.set_xlabel(label, loc="left")
    caption = (
        f"Effect on {metric} of {suite} through each token of the prompt ({unit}; purple is loss), summed over components and "
        f"choices, of the items with the largest effects; {ANSWERS}: through the tokens of the choices."
    )
    return Drawn(figure, strips.reset_index(drop=True), caption)


def _words(texts: pd.Series) -> list[str]:
    return [text.strip()[:16] or "\N{OPEN BOX}" for text in texts.fillna("").astype(str)]


def _set(strips: pd.DataFrame, *, room: float) -> tuple[list[tuple[float, int, float]], int, dict[str, int]]:
    """Return each token's (left, line, width) in points, the number of lines, and the line where each item starts."""
    font = FontProperties(family="STIXGeneral", size=SIZE)
    cells, ticks, line, left = [], {}, -1, 0.0
    for item, word in zip(strips["item"], _words(strips["text"])):
        wide = max(float(TextPath((0, 0), word.replace("$", "S"), prop=font).get_extents().width), 2.0) + 4.5
        if item not in ticks or left + wide > room:
            line, left = line + 1, 0.0
            ticks.setdefault(item, line)
        cells.append((left, line, wide))
        left += wide
    return cells, line + 1, ticks
