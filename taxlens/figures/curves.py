"""Layer curves: what probes read and how similar the two models are, layer by layer."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import GREY, SERIES, Drawn, interval_words, new_figure, paper_style


def draw_probe_curves(
    frame: pd.DataFrame, *, suite: str, label: str, template: str, width: float = 5.5, names: str = ""
) -> Drawn:
    """Draw a label's held-out score by layer: base, aligned, base's probe read on aligned, shuffled labels.

    Args:
        frame: probes.csv [rows, columns].
        suite: which suite.
        label: which label.
        template: which template.
        width: inches.
        names: "base against aligned" for the caption.
    """
    here = (frame["suite"] == suite) & (frame["label"] == label) & (frame["template"] == template)
    rows = frame[here & frame["metric"].isin(["auc", "r2", "balanced_accuracy"])]
    if not rows.empty:
        rows = rows[rows["metric"] == next(m for m in ("auc", "balanced_accuracy", "r2") if m in set(rows["metric"]))]
    plain = rows["map"].fillna("none") == "none"
    control = rows["control"].fillna("none")
    series = {
        "base": plain & (control == "none") & (rows["fitted_on"] == "base") & (rows["read_on"] == "base"),
        "aligned": plain & (control == "none") & (rows["fitted_on"] == "aligned") & (rows["read_on"] == "aligned"),
        "base's probe on aligned": plain
        & (control == "none")
        & (rows["fitted_on"] == "base")
        & (rows["read_on"] == "aligned"),
        "shuffled labels": (control == "shuffled") & (rows["fitted_on"] == "base") & (rows["read_on"] == "base"),
    }
    if rows.empty:
        wanted = [("suite", suite), ("label", label), ("template", template)]
        raise UsageError(explain("the run holds no probe of that kind.", wanted))
    metric = str(rows["metric"].iloc[0])
    with paper_style():
        figure = new_figure(width, 2.3)
        axes = figure.subplots()
        parts = [_line(axes, rows[mask], name, style) for (name, mask), style in zip(series.items(), SERIES)]
        if metric in ("auc", "balanced_accuracy"):
            axes.axhline(0.5, color=GREY, linewidth=0.6)
        axes.set_xlabel("layer")
        axes.set_ylabel(f"held-out {metric.replace('_', ' ')}")
        _integer_ticks(axes)
        figure.legend(loc="outside upper center", ncols=4)
    plotted = pd.concat([p for p in parts if not p.empty], ignore_index=True)
    shown = interval_words(int(plotted["n_items"].max()), int(plotted["n_groups"].max()))
    caption = (
        f"Held-out {metric} of the probe for '{label}' on {suite} ({template}) by layer"
        f"{f' ({names})' if names else ''}. "
        f"Bands: {shown}. Grey line: chance."
    )
    return Drawn(figure, plotted, caption)


def draw_similarity_curves(
    frame: pd.DataFrame, *, width: float = 5.5, measures: tuple[str, ...] = (), names: str = ""
) -> Drawn:
    """Draw each similarity measure of matched layers by layer, with its interval.

    Args:
        frame: similarity.csv [rows, columns].
        width: inches.
        measures: which measures (default: all in the table).
        names: "base against aligned" for the caption.
    """
    rows = frame[frame["layer_base"] == frame["layer_aligned"]]
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
        figure = new_figure(width, 1.6 if len(wanted) == 1 else 1.55 * ((len(wanted) + 1) // 2))
        grid = figure.subplots((len(wanted) + 1) // 2, 2 if len(wanted) > 1 else 1, sharex=True, squeeze=False)
        parts = []
        for axes, measure in zip(grid.flat, wanted):
            part = rows[rows["measure"] == measure].sort_values(["template", "layer_base"], kind="stable")
            for (template, line), style in zip(part.groupby("template", sort=True), SERIES):
                drawn = _line(axes, line.rename(columns={"layer_base": "layer"}), str(template), style)
                parts.append(drawn.assign(measure=measure))
            axes.set_title(measure.replace("_", " "), loc="left")
            _integer_ticks(axes)
        for axes in grid.flat[len(wanted) :]:
            axes.remove()
        for axes in list(grid.flat[: len(wanted)])[-grid.shape[1] :]:
            axes.set_xlabel("layer")
            axes.tick_params(labelbottom=True)
        if rows["template"].nunique() > 1:
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=3)
    plotted = pd.concat(parts, ignore_index=True)
    caption = (
        f"Similarity of base and aligned at matched layers{f' ({names})' if names else ''}, "
        f"{int(rows['n_items'].max())} rows; bands: 95 % intervals by group. Similarity reads movement, not loss."
    )
    return Drawn(figure, plotted, caption)


def _line(axes, rows: pd.DataFrame, name: str, style: tuple[str, str, str]) -> pd.DataFrame:
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


def _integer_ticks(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
