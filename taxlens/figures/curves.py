"""Layer curves: how similar the two models are, layer by layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import GREY, SERIES, Drawn, new_figure, paper_style, written


def draw_similarity_curves(
    frame: pd.DataFrame,
    *,
    width: float = 5.5,
    measures: tuple[str, ...] = (),
    site: str | None = None,
    names: str = "",
) -> Drawn:
    """Draw each similarity measure of matched layers by layer, with its interval.

    Args:
        frame: similarity.csv [rows, columns].
        width: inches.
        measures: which measures (default: all in the table).
        site: which site; the table's first if left out.
        names: "base against aligned" for the caption.
    """
    rows = frame[frame["layer_base"] == frame["layer_aligned"]]
    if "head" in rows:
        rows = rows[rows["head"].isna()]
    if "site" in rows and len(rows):
        rows = rows[rows["site"] == (site or rows["site"].iloc[0])]
    rows = (
        rows[rows["suite"].isna() | (rows["suite"] == "")]
        if rows["suite"].isna().any() or (rows["suite"] == "").any()
        else rows
    )
    wanted = list(measures) or list(dict.fromkeys(rows["measure"]))
    rows = rows[rows["measure"].isin(wanted)]
    if rows.empty:
        raise UsageError(explain("the run holds no similarity of matched layers.", [("measures", ", ".join(wanted))]))
    with paper_style():
        columns = min(len(wanted), 3 if width > 4.5 else 2)
        lines = -(-len(wanted) // columns)
        figure = new_figure(width, 0.6 + 1.15 * lines)
        grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
        parts = []
        for axes, measure in zip(grid.flat, wanted):
            part = rows[rows["measure"] == measure].sort_values(["template", "layer_base"], kind="stable")
            for (template, line), style in zip(part.groupby("template", sort=True), SERIES):
                drawn = draw_line(axes, line.rename(columns={"layer_base": "layer"}), str(template), style)
                parts.append(drawn.assign(measure=measure))
                null = line.set_index("layer_base").get("null")
                if null is not None and null.notna().any():
                    axes.plot(null.index, null, color=GREY, linewidth=0.7, linestyle=style[2], label="_null")
                    parts[-1]["null"] = null.to_numpy()
            axes.set_title(written(measure), loc="left")
            integer_ticks(axes)
        for axes in grid.flat[len(wanted) :]:
            axes.remove()
        for axes in list(grid.flat[: len(wanted)])[-columns:]:
            axes.set_xlabel("layer")
            axes.tick_params(labelbottom=True)
        if rows["template"].nunique() > 1:
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=3)
    plotted = pd.concat(parts, ignore_index=True)
    caption = (
        f"Similarity of base and aligned at matched layers{f' ({names})' if names else ''}, "
        f"{int(rows['n_items'].max())} rows; bands: 95 % intervals by group; grey: the null (rows paired with rows of other "
        "groups). Similarity reads movement, not loss."
    )
    return Drawn(figure, plotted, caption)


def draw_line(axes, rows: pd.DataFrame, name: str, style: tuple[str, str, str]) -> pd.DataFrame:
    """Draw value by layer with its band and return what was drawn: layer, value, low, high, counts, series."""
    rows = rows.sort_values("layer", kind="stable")
    if rows.empty:
        return pd.DataFrame()
    colour, marker, dash = style
    axes.plot(rows["layer"], rows["value"], color=colour, marker=marker, linestyle=dash, label=name)
    axes.fill_between(
        rows["layer"],
        rows["low"].astype(float),
        rows["high"].astype(float),
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    columns = [c for c in ("layer", "value", "low", "high", "n_items", "n_groups") if c in rows]
    return rows[columns].assign(series=name).reset_index(drop=True)


def integer_ticks(axes) -> None:
    """Tick whole layers only."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
