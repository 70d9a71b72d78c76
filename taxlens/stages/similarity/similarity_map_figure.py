"""Every base layer against every aligned layer, as a map."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import Drawn, new_figure, paper_style, written


def draw_similarity_map(
    frame: pd.DataFrame,
    *,
    measure: str = "cka",
    template: str | None = None,
    site: str | None = None,
    width: float = 5.5,
) -> Drawn:
    """Draw a measure of every base layer (rows) and aligned layer (columns); the closest base layer of each is marked.

    Args:
        frame: similarity.csv [rows, columns].
        measure: which measure.
        template: which template; the table's first if left out.
        site: which site; the table's first if left out.
        width: inches.
    """
    rows = frame[(frame["measure"] == measure)]
    if "head" in rows:
        rows = rows[rows["head"].isna()]
    for name, wanted in (("template", template), ("site", site)):
        if name in rows and len(rows):
            rows = rows[rows[name] == (wanted or rows[name].iloc[0])]
    if not (rows["layer_base"] != rows["layer_aligned"]).any():
        wanted = [("measure", measure), ("template", template), ("site", site)]
        fix = f"--set similarity.map=[{measure}], or acts.similarity({measure!r}, layers='all')"
        raise UsageError(explain("the table compares matched layers alone.", wanted, fix))
    grid = rows.pivot_table(index="layer_base", columns="layer_aligned", values="value", dropna=False)
    side = min(width, 4.6)
    with paper_style():
        figure = new_figure(width, 0.82 * side)
        axes = figure.subplots()
        image = axes.imshow(grid.to_numpy(), cmap="viridis", origin="lower", interpolation="nearest", vmax=1.0)
        best = grid.to_numpy().argmax(0)
        axes.plot(range(len(best)), best, linestyle="none", marker="o", markersize=1.8, color="white")
        for axis, layers in ((axes.xaxis, grid.columns), (axes.yaxis, grid.index)):
            step = max(1, len(layers) // 10)
            axis.set_ticks(range(0, len(layers), step), [str(int(layer)) for layer in layers[::step]])
        axes.set_xlabel("layer of aligned")
        axes.set_ylabel("layer of base")
        for edge in ("left", "bottom"):
            axes.spines[edge].set_visible(False)
        figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02).set_label(written(measure))
    moved = int((grid.index.to_numpy()[best] != grid.columns.to_numpy()).sum())
    caption = (
        f"{measure} of every base layer and every aligned layer, up to {int(rows['n_items'].max())} rows. White: the base "
        f"layer most like each aligned layer; {moved} of {len(best)} are not the layer of the same depth. Similarity reads "
        "movement, not loss."
    )
    columns = [c for c in ("layer_base", "layer_aligned", "value", "low", "high", "n_items") if c in rows]
    return Drawn(figure, rows[columns].reset_index(drop=True), caption)
