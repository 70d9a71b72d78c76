"""Gain and loss spectra: which directions weakened and which are no longer recoverable, against their null band."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import GREY, SERIES, Drawn, new_figure, paper_style


def draw_spectra(frame: pd.DataFrame, *, template: str, layers: int = 5, width: float = 5.5) -> Drawn:
    """Draw the gain and loss spectra of a few layers, evenly spread, with the widest null band.

    Args:
        frame: spectra.csv [rows, columns].
        template: which template.
        layers: how many layers at most.
        width: inches.
    """
    rows = frame[frame["template"] == template]
    if rows.empty:
        raise UsageError(explain("the run holds no spectrum of that template.", [("template", template)]))
    kinds = [kind for kind in ("gain", "loss") if kind in set(rows["spectrum"])]
    every = sorted(rows["layer"].unique())
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(layers, len(every))).astype(int))]
    with paper_style():
        figure = new_figure(width, 2.3)
        grid = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, kind in zip(grid, kinds):
            part = rows[(rows["spectrum"] == kind) & rows["layer"].isin(chosen)]
            band = part.groupby("rank")[["null_low", "null_high"]].agg({"null_low": "min", "null_high": "max"})
            axes.fill_between(band.index, band["null_low"], band["null_high"], color=GREY, alpha=0.25, linewidth=0)
            for layer, (colour, marker, dash) in zip(chosen, SERIES):
                line = part[part["layer"] == layer].sort_values("rank")
                axes.plot(line["rank"], line["value"], color=colour, linestyle=dash, label=f"layer {layer}")
                axes.plot(line["rank"].iloc[:1], line["value"].iloc[:1], color=colour, marker=marker)
            axes.set_title(f"{kind} spectrum", loc="left")
            axes.set_xlabel("rank of the direction")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)
    plotted = rows[rows["layer"].isin(chosen)][["layer", "spectrum", "rank", "value", "null_low", "null_high"]]
    caption = (
        "Gain spectrum: singular values of the ridge map from base to aligned on base's principal components, below the "
        "band: weakened directions. Loss spectrum: share of base variance that is no longer linearly recoverable from "
        "aligned, above the band: lost directions. Grey: null band (the same model plus noise), widest of the layers shown."
    )
    return Drawn(figure, plotted, caption)
