"""Gain and loss spectra: which directions weakened and which are no longer recoverable, against their null bands."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREY, ORANGE, Drawn, new_figure, paper_style


def draw_spectra(frame: pd.DataFrame, *, template: str, layers: int | None = None, width: float = 5.5) -> Drawn:
    """Draw the gain and loss spectra of a few layers, evenly spread, each with its own null band.

    Args:
        frame: spectra.csv [rows, columns].
        template: which template.
        layers: how many layers at most (default: as many as the width shows well).
        width: inches.
    """
    rows = frame[frame["template"] == template]
    if rows.empty:
        raise UsageError(explain("the run holds no spectrum of that template.", [("template", template)]))
    kinds = [kind for kind in ("gain", "loss") if kind in set(rows["spectrum"])]
    every = sorted(rows["layer"].unique())
    most = layers or (5 if width > 4.5 else 3)
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).astype(int))]
    parts = []
    with paper_style():
        figure = new_figure(width, 0.5 + 1.15 * len(kinds))
        grid = figure.subplots(len(kinds), len(chosen), squeeze=False, sharex=True, sharey="row")
        for line, (kind, colour) in zip(grid, zip(kinds, (BLUE, ORANGE))):
            for axes, layer in zip(line, chosen):
                part = rows[(rows["spectrum"] == kind) & (rows["layer"] == layer)].sort_values("rank")
                axes.fill_between(
                    part["rank"], part["null_low"], part["null_high"], color=GREY, alpha=0.35, linewidth=0
                )
                axes.plot(part["rank"], part["value"], color=colour)
                axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, prune="upper"))
                parts.append(part)
            line[0].set_ylabel(kind)
        for axes, layer in zip(grid[0], chosen):
            axes.set_title(f"layer {layer}", loc="left")
        figure.supxlabel("rank of the direction", fontsize=8)
    plotted = pd.concat(parts, ignore_index=True)[["layer", "spectrum", "rank", "value", "null_low", "null_high"]]
    caption = (
        "Gain spectrum: singular values of the ridge map from base to aligned on base's principal components; below the "
        "band: weakened directions. Loss spectrum: share of base variance that is no longer linearly recoverable from "
        f"aligned; above the band: lost directions. Grey: each layer's null band (the same model plus noise). {template} prompt"
        + (f", {int(rows['n_items'].max())} rows." if "n_items" in rows else ".")
    )
    return Drawn(figure, plotted, caption)
