"""Maps of effects: layer by kind, layer by head. Symmetric about zero, darker is larger, the sign is written."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import DIVERGING, Drawn, new_figure, paper_style, written
from taxlens.words.amounts import unit_of

SIGNED = 0.35
"""Cells whose effect is above this share of the largest carry their sign, for readers in grey."""

_SIGNS = f"Cells above {SIGNED:.0%} of the largest carry their sign, for readers in grey.".replace("%", " %")
_OUTSIDE = ("embed", "final_norm", "unembed", "added_tokens")
_HEAD = re.compile(r"^(\d+)\.attn\.(h|kv)(\d+)$")


def _rows(frame: pd.DataFrame, suite: str, metric: str, level: str) -> pd.DataFrame:
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & (frame["level"] == level)
    rows = frame[here & (frame["method"] == "path")]
    if rows.empty:
        wanted = [("suite", suite), ("metric", metric), ("level", level)]
        raise UsageError(explain("the run holds no path attribution of that kind.", wanted))
    return rows


def draw_layer_map(frame: pd.DataFrame, *, suite: str, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the effect of every layer's attention, feed-forward part and norms as a map.

    Args:
        frame: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        width: inches.
    """
    rows = _rows(frame, suite, metric, "component")
    blocks = rows[rows["component"].str.match(r"^\d+\.(attn|mlp|norm)$")]
    kinds = [kind for kind in ("attn", "mlp", "norm") if kind in set(blocks["kind"])]
    layers = sorted(blocks["layer"].astype(int).unique())
    grid = np.full((len(kinds), len(layers)), np.nan)
    for row in blocks.itertuples():
        grid[kinds.index(row.kind), layers.index(int(row.layer))] = row.effect
    outside = rows[rows["component"].isin(_OUTSIDE)]
    rest = ", ".join(f"{r.component} {r.effect * unit_of(metric)[1]:.3g}" for r in outside.itertuples())
    figure = _heat(grid, kinds, layers, metric, width=width, x="layer")
    caption = (
        f"Path effect on {suite} in {written(metric)} by layer and kind ({unit_of(metric)[0]}; positive is loss). {_SIGNS}"
        + (f" Outside the blocks: {rest}." if rest else "")
    )
    return Drawn(figure, blocks[["component", "layer", "kind", "effect", "low", "high"]], caption)


def draw_head_map(frame: pd.DataFrame, *, suite: str, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the effect of every attention head as a map of layers by heads (grouped keys and values as columns `kv`).

    Args:
        frame: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        width: inches.
    """
    rows = _rows(frame, suite, metric, "head")
    heads = [(m, row) for row in rows.itertuples() if (m := _HEAD.match(row.component))]
    if not heads:
        raise UsageError(explain("the table names no heads.", [("suite", suite)]))
    columns = sorted({(m[2], int(m[3])) for m, _ in heads})
    layers = sorted({int(m[1]) for m, _ in heads})
    grid = np.full((len(columns), len(layers)), np.nan)
    for m, row in heads:
        grid[columns.index((m[2], int(m[3]))), layers.index(int(m[1]))] = row.effect
    figure = _heat(grid, [f"{kind}{number}" for kind, number in columns], layers, metric, width=width, x="layer")
    unit = unit_of(metric)[0]
    caption = (
        f"Path effect on {suite} in {written(metric)} by attention head ({unit}; positive is loss); h: heads, kv: grouped keys "
        f"and values. {_SIGNS}"
    )
    plotted = pd.DataFrame(
        [{"component": r.component, "effect": r.effect, "low": r.low, "high": r.high} for _, r in heads]
    )
    return Drawn(figure, plotted, caption)


def _heat(grid: np.ndarray, names: list[str], layers: list[int], metric: str, *, width: float, x: str):
    unit, scale = unit_of(metric)
    most = float(np.nanmax(np.abs(grid))) * scale or 1.0
    with paper_style():
        figure = new_figure(width, 0.9 + 0.19 * len(names))
        axes = figure.subplots()
        image = axes.imshow(grid * scale, cmap=DIVERGING, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(names)), names)
        step = max(1, len(layers) // (15 if width > 4.5 else 8))
        axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axes.set_xlabel(x)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        signed = np.abs(grid * scale) > SIGNED * most
        for y, column in zip(*np.nonzero(signed & (0.8 * width / len(layers) > 0.1))):
            sign = "+" if grid[y, column] > 0 else "\N{MINUS SIGN}"
            ink = "white" if abs(grid[y, column] * scale) > 0.5 * most else "black"
            axes.text(column, y, sign, ha="center", va="center", fontsize=6, color=ink)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01)
        bar.set_label(unit)
    return figure
