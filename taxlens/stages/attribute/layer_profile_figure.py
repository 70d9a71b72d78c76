"""What each measure says of each layer, one under the other on one axis: where they agree and where they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.curves import integer_ticks
from taxlens.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, Drawn, new_figure, paper_style, unit_of, written


def layer_rows(
    attribution: pd.DataFrame,
    *,
    suite: str,
    metric: str,
    drops: pd.DataFrame | None = None,
    similarity: pd.DataFrame | None = None,
    restoration: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the measures of a suite by layer: columns panel, layer, value, low, high.

    Panels: "tax" (path effects summed over the layer), "probe" (drop of the probe of the right answer), "cka" (of the
    residual stream), "restored" (share of the tax that returns when the base computes everything below the layer).
    """
    here = (attribution["suite"] == suite) & (attribution["metric"] == metric) & (attribution["level"] == "component")
    blocks = attribution[here & (attribution["method"] == "path") & (attribution["layer"] >= 0)]
    frames = [blocks.groupby("layer")["effect"].sum().rename("value").reset_index().assign(panel="tax")]
    if drops is not None and len(drops):
        mine = drops[(drops["suite"] == suite) & (drops["label"] == "correct") & (drops["site"] == "resid_post")]
        mine = mine[mine["template"] == mine["template"].iloc[0]] if len(mine) else mine
        frames.append(mine.rename(columns={"drop": "value"})[["layer", "value", "low", "high"]].assign(panel="probe"))
    if similarity is not None and len(similarity):
        mine = similarity[(similarity["measure"] == "cka") & (similarity["site"] == "resid_post")]
        mine = mine[mine["suite"].isin([suite])] if (mine["suite"] == suite).any() else mine[mine["suite"].isna()]
        mine = mine[mine["layer_base"] == mine["layer_aligned"]].drop_duplicates("layer_base")
        renamed = mine.rename(columns={"layer_base": "layer"})
        frames.append(renamed[["layer", "value", "low", "high"]].assign(panel="cka"))
    if restoration is not None and len(restoration):
        mine = restoration[(restoration["suite"] == suite) & (restoration["metric"] == metric)]
        value = "restored" if "restored" in mine else "value"
        ends = [name for name in ("low", "high") if name in mine]
        frames.append(mine.rename(columns={value: "value"})[["layer", "value", *ends]].assign(panel="restored"))
    found = [frame for frame in frames if len(frame)]
    if not found:
        raise UsageError(explain("the run holds no measure by layer.", [("suite", suite), ("metric", metric)]))
    return pd.concat(found, ignore_index=True).reindex(columns=["panel", "layer", "value", "low", "high"])


def draw_layer_profile(
    attribution: pd.DataFrame,
    *,
    suite: str,
    metric: str = "probability",
    drops: pd.DataFrame | None = None,
    similarity: pd.DataFrame | None = None,
    restoration: pd.DataFrame | None = None,
    width: float = 5.5,
) -> Drawn:
    """Draw tax by layer, probe drop, similarity and restoration under each other with one layer axis.

    Args:
        attribution: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        drops: probe_drop.csv, if the run probed.
        similarity: similarity.csv, if the run compared activations.
        restoration: restoration.csv, if the run measured it.
        width: inches.

    Raises:
        UsageError: if nothing is known by layer.
    """
    rows = layer_rows(
        attribution, suite=suite, metric=metric, drops=drops, similarity=similarity, restoration=restoration
    )
    unit, scale = unit_of(metric)
    panels = {
        "tax": (f"tax ({unit})", scale, BLUE, "bar"),
        "probe": ("probe drop (AUC)", 1.0, ORANGE, "line"),
        "cka": ("CKA", 1.0, GREEN, "line"),
        "restored": ("tax restored (%)", 100.0, PURPLE, "line"),
    }
    shown = [name for name in panels if (rows["panel"] == name).any()]
    with paper_style():
        figure = new_figure(width, 0.5 + 1.0 * len(shown))
        axes = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
        for each, name in zip(axes, shown, strict=True):
            label, factor, colour, form = panels[name]
            mine = rows[rows["panel"] == name].sort_values("layer")
            if form == "bar":
                each.bar(mine["layer"], mine["value"] * factor, color=colour, width=0.8)
            else:
                each.plot(mine["layer"], mine["value"] * factor, color=colour, marker="o")
                if mine["low"].notna().any():
                    each.fill_between(
                        mine["layer"], mine["low"] * factor, mine["high"] * factor, color=colour, alpha=0.2, linewidth=0
                    )
            if name != "cka":
                each.axhline(0, color=GREY, linewidth=0.5, zorder=0)
            each.set_ylabel(label)
        axes[-1].set_xlabel("layer")
        integer_ticks(axes[-1])
    caption = (
        f"{suite} by layer, {written(metric)}: share of the tax that the layer's weights carry (positive is loss)"
        + (", drop of the probe of the right answer from base to aligned" if "probe" in shown else "")
        + (", similarity of the two models' residual streams" if "cka" in shown else "")
        + (
            ", share of the tax that returns when the base computes everything below the layer"
            if "restored" in shown
            else ""
        )
        + ". Bands: 95 % intervals."
    )
    return Drawn(figure, rows, caption)
