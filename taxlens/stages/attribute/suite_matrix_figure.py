"""Which component hurts which suite: a matrix of components by suites."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import DIVERGING, Drawn, new_figure, paper_style, unit_of, written

ROWS = 18
"""Components shown; the others are summed in a last row."""


def draw_suite_matrix(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the path effect of each component on each suite, the components with the largest effects first.

    Args:
        frame: attribution.csv [rows, columns].
        metric: which metric.
        width: inches.

    Raises:
        UsageError: if fewer than two suites were attributed in the metric.
    """
    here = (frame["metric"] == metric) & (frame["level"] == "component") & (frame["method"] == "path")
    rows = frame[here]
    if rows["suite"].nunique() < 2:
        asked = [("metric", metric), ("suites", rows["suite"].nunique())]
        raise UsageError(explain("a matrix of components by suites needs two suites.", asked))
    table = rows.pivot_table(index="component", columns="suite", values="effect", aggfunc="first", sort=False)
    order = table.abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    columns = np.sort(table.abs().max().to_numpy())
    limit = float(columns[-2]) or float(columns[-1])
    visible = [name for name in order if table.loc[name].abs().max() >= 0.01 * limit][:ROWS]
    leading = table.loc[visible]
    if len(order) > len(visible):
        rest = table.loc[[name for name in order if name not in set(visible)]].sum()
        leading = pd.concat([leading, rest.to_frame(f"{len(order) - len(visible)} others").T])
    unit, scale = unit_of(metric)
    values = leading.to_numpy(dtype=float) * scale
    most = limit * scale or 1.0
    with paper_style():
        figure = new_figure(width, 0.9 + 0.16 * len(leading))
        axes = figure.subplots()
        image = axes.imshow(values, cmap=DIVERGING, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(leading)), list(leading.index))
        axes.set_xticks(range(leading.shape[1]), list(leading.columns), rotation=30, ha="right")
        for y, x in np.ndindex(*values.shape):
            if np.isfinite(values[y, x]) and abs(values[y, x]) >= 0.02 * most:
                ink = "white" if abs(values[y, x]) > 0.6 * most else "black"
                axes.text(x, y, f"{values[y, x]:.2g}", ha="center", va="center", fontsize=6, color=ink)
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01, extend="both").set_label(f"effect ({unit})")
    plotted = leading.reset_index(names="component").melt("component", var_name="suite", value_name="effect")
    caption = (
        f"Effect of each component on each suite's tax in {written(metric)} ({unit}; positive is loss; layers count from 0). "
        "The colours end at the second largest suite; cells below 2 % of that carry no number."
    )
    return Drawn(figure, plotted, caption)
