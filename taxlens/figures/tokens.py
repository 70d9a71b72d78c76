"""Token strips: which tokens of an item the effect runs through."""

from __future__ import annotations

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import DIVERGING, Drawn, new_figure, paper_style, unit_of


def draw_tokens(frame: pd.DataFrame, *, suite: str, items: tuple[str, ...], metric: str, width: float = 5.5) -> Drawn:
    """Draw each item's gold row as a strip of tokens, coloured by their effect.

    Args:
        frame: attribution_tokens.csv [rows, columns].
        suite: which suite.
        items: which items, a strip each.
        metric: which metric.
        width: inches.
    """
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & frame["item"].isin(items)
    rows = frame[here & (frame["component"].fillna("") == "")]
    if rows.empty:
        wanted = [("suite", suite), ("items", ", ".join(items)), ("metric", metric)]
        raise UsageError(explain("the run holds no token effects of these items.", wanted))
    unit, scale = unit_of(metric)
    most = float(rows["effect"].abs().max()) * scale or 1.0
    norm, colours = Normalize(-most, most), colormaps[DIVERGING]
    shown = [(item, part.groupby("token", sort=True).agg(text=("text", "first"), effect=("effect", "sum")))
             for item, part in rows.groupby("item", sort=False)]  # fmt: skip
    with paper_style():
        figure = new_figure(width, 0.5 + 0.42 * len(shown))
        axes = figure.subplots()
        longest = max(len(part) for _, part in shown)
        for y, (_, part) in enumerate(shown):
            for x, token in enumerate(part.itertuples()):
                value = token.effect * scale
                axes.barh(y, 1, left=x, height=0.7, color=colours(norm(value)), edgecolor="white", linewidth=0.4)
                ink = "white" if abs(value) > 0.6 * most else "black"
                axes.text(x + 0.5, y, str(token.text).strip()[:12], ha="center", va="center", fontsize=6, color=ink)
        axes.set_yticks(range(len(shown)), [item for item, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, longest)
        axes.set_xticks([])
        axes.set_xlabel(f"tokens, coloured by effect on {metric}, ±{most:.3g} {unit}")
    plotted = pd.concat([part.reset_index().assign(item=item) for item, part in shown], ignore_index=True)
    caption = f"Effect on {metric} of {suite} through each token ({unit}), summed over components and choices; positive is loss."
    return Drawn(figure, plotted, caption)
