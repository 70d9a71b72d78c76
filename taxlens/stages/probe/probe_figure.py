"""What probes read by layer: bands, chance, the layers that lost, and whether directions turned beyond their ceiling."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.curves import draw_line, integer_ticks
from taxlens.figures.style import BLUE, GREY, RED, SERIES, Drawn, interval_words, new_figure, paper_style, written

ALPHA = 0.05
METRICS = ("compression", "auc", "balanced_accuracy", "r2")
CHANCE = {"auc": 0.5, "balanced_accuracy": 0.5, "r2": 0.0, "compression": 1.0}


def draw_probe_curves(
    frame: pd.DataFrame,
    *,
    suite: str,
    label: str,
    template: str,
    site: str | None = None,
    drops: pd.DataFrame | None = None,
    width: float = 5.5,
    names: str = "",
) -> Drawn:
    """Draw a label's held-out score by layer: base, aligned, base's probe read on aligned, shuffled labels.

    Args:
        frame: probes.csv [rows, columns].
        suite: which suite.
        label: which label.
        template: which template.
        site: which site; the table's first if left out.
        drops: probe_drop.csv: layers that lost are ringed, and a second panel shows the cosine of base's and
            aligned's directions with its split-half ceiling.
        width: inches.
        names: "base against aligned" for the caption.
    """
    rows = _whole(frame, suite, label, template, site)
    rows = rows[rows["metric"].isin(METRICS)]
    if rows.empty:
        wanted = [("suite", suite), ("label", label), ("template", template)]
        raise UsageError(explain("the run holds no probe of that kind.", wanted))
    metric = next(m for m in METRICS if m in set(rows["metric"]))
    rows = rows[rows["metric"] == metric]
    lost = None if drops is None else _whole(drops, suite, label, template, site)
    turned = lost is not None and "cosine" in lost and lost["cosine"].notna().any()
    with paper_style():
        figure = new_figure(width, 2.3)
        panels = figure.subplots(1, 2, width_ratios=(3, 2)) if turned else [figure.subplots()]
        axes = panels[0]
        series = _series(rows)
        parts = [draw_line(axes, part, name, style) for (name, part), style in zip(series.items(), SERIES)]
        axes.axhline(CHANCE[metric], color=GREY, linewidth=0.6)
        reads = series["base"].loc[series["base"]["value"] > CHANCE[metric], "layer"]
        flagged = _ring(axes, lost, series["aligned"], set(reads))
        axes.set_ylabel(f"held-out {written(metric)}")
        if turned:
            parts += _cosines(panels[1], lost)
        for each in panels:
            each.set_xlabel("layer")
            integer_ticks(each)
        figure.legend(loc="outside upper center", ncols=4 if width > 4 else 2)
    plotted = pd.concat([part for part in parts if not part.empty], ignore_index=True)
    shown = interval_words(int(rows["n_items"].max()), int(rows["n_groups"].max()))
    caption = (
        f"Held-out {metric} of the probe for '{label}' on {suite} ({template}) by layer"
        f"{f' ({names})' if names else ''}. Bands: {shown}. Grey line: chance."
    )
    if lost is not None and lost["p_adjusted"].notna().any():
        caption += f" Rings: layers that lost (adjusted p <= {ALPHA} over all layers and labels of the run): {flagged}."
    if turned:
        caption += (
            " Right: cosine of base's and aligned's probe directions, fitted on disjoint halves of the groups; "
            "ceiling: what that cosine is where only sampling stands between them."
        )
    return Drawn(figure, plotted, caption)


def _whole(frame: pd.DataFrame, suite: str, label: str, template: str, site: str | None) -> pd.DataFrame:
    """Rows of one label at one site, whole rows (no single head)."""
    rows = frame[(frame["suite"] == suite) & (frame["label"] == label) & (frame["template"] == template)]
    if "head" in rows:
        rows = rows[rows["head"].isna()]
    if "site" in rows and len(rows):
        here = site or rows["site"].iloc[0]
        rows = rows[(rows["site"] == here)]
    return rows


def _series(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    plain = rows["map"].fillna("none") == "none"
    control, fitted, read = rows["control"].fillna("none"), rows["fitted_on"], rows["read_on"]
    own = plain & (control == "none")
    return {
        "base": rows[own & (fitted == "base") & (read == "base")],
        "aligned": rows[own & (fitted == "aligned") & (read == "aligned")],
        "base's probe on aligned": rows[own & (fitted == "base") & (read == "aligned")],
        "shuffled labels": rows[(control == "shuffled") & (fitted == "base") & (read == "base")],
    }


def _ring(axes, lost: pd.DataFrame | None, aligned: pd.DataFrame, reads: set[int]) -> str:
    """Ring aligned's points at the layers that lost (of those that base reads), and name them."""
    if lost is None:
        return ""
    layers = lost.loc[(lost["p_adjusted"] <= ALPHA) & (lost["drop"] > 0) & lost["layer"].isin(reads), "layer"]
    points = aligned[aligned["layer"].isin(layers)]
    if points.empty:
        return "none"
    style = {"linestyle": "none", "marker": "o", "markersize": 6.5, "markerfacecolor": "none"}
    axes.plot(points["layer"], points["value"], markeredgecolor=RED, markeredgewidth=0.9, label="_lost", **style)
    return ", ".join(str(int(layer)) for layer in sorted(layers))


def _cosines(axes, lost: pd.DataFrame) -> list[pd.DataFrame]:
    lost = lost.sort_values("layer", kind="stable")
    axes.fill_between(lost["layer"], 0, lost["ceiling"].astype(float), color=GREY, alpha=0.15, linewidth=0)
    axes.plot(lost["layer"], lost["ceiling"], color=GREY, linestyle=":", label="ceiling of the cosine")
    axes.plot(lost["layer"], lost["cosine"], color=BLUE, marker="D", markersize=2.4, label="cosine of directions")
    axes.set_ylabel("cosine")
    return [
        lost[["layer"]].assign(value=lost[column], series=name).reset_index(drop=True)
        for column, name in (("cosine", "cosine of directions"), ("ceiling", "ceiling of the cosine"))
    ]
