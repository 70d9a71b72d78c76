"""Planted pairs: how much of what each method says lies on the planted components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from taxlens.analysis.interventions.method_registry import METHODS
from taxlens.core.errors import ConfigError
from taxlens.demo import truth as demo_truth
from taxlens.figures.style import BLUE, GREY, ORANGE, Drawn, new_figure, paper_style


def planted_components(config: Any) -> pd.DataFrame:
    """Return the components where a run's pair was planted to lose [rows: suite, component]; empty for other pairs.

    Args:
        config: the run's config; its pair is planted if it is an embedded one whose truth file names components.
    """
    empty = pd.DataFrame({"suite": pd.Series(dtype=str), "component": pd.Series(dtype=str)})
    aligned = config.pair.aligned
    if not (isinstance(aligned, str) and aligned.startswith("demo:")):
        return empty
    try:
        known = demo_truth(aligned)
    except ConfigError:  # an embedded pair without a truth file
        return empty
    harm = known.get("components", {}).get("harm", [])
    return pd.DataFrame([(suite, name) for suite in known["taxed"] for name in harm], columns=["suite", "component"])


def mass_on_truth(attribution: pd.DataFrame, truth: pd.DataFrame, *, metric: str = "probability") -> pd.DataFrame:
    """Return the share of positive effect on the planted components by method, mean over planted suites.

    Args:
        attribution: attribution.csv [rows, columns].
        truth: planted components [rows: suite, component].
        metric: which metric.

    Returns:
        method, mass (0..1), suites (how many).
    """
    rows = attribution[(attribution["metric"] == metric) & (attribution["level"] == "component")]
    found = []
    for method in [m for m in METHODS if m in set(rows["method"])]:
        shares = []
        for suite, planted in truth.groupby("suite"):
            part = rows[(rows["method"] == method) & (rows["suite"] == suite)]
            gain = np.clip(part["effect"].to_numpy(float), 0, None)
            on = part["component"].isin(planted["component"]).to_numpy()
            if gain.sum() > 0:
                shares.append(gain[on].sum() / gain.sum())
        if shares:
            found.append((method, float(np.mean(shares)), len(shares)))
    return pd.DataFrame(found, columns=["method", "mass", "suites"])


def draw_proving_ground(frame: pd.DataFrame, *, width: float = 5.5) -> Drawn:
    """Draw the proving ground as a table of dots: mass on the truth and distance to exact Shapley, by method.

    Args:
        frame: a row a plant and method: family, method, mass (0..1), distance (over the tax), passes.
        width: inches.
    """
    order = frame.groupby("method")["distance"].median().sort_values(na_position="last").index
    names = [name for name in order if name != "exact Shapley"]
    exact = ["exact Shapley"] if "exact Shapley" in set(frame["method"]) else []
    names = [*exact, *names]
    with paper_style():
        figure = new_figure(width, 0.85 + 0.19 * len(names))
        left, right = figure.subplots(1, 2, sharey=True)
        for y, name in enumerate(names):
            rows = frame[frame["method"] == name]
            for axes, column in ((left, "mass"), (right, "distance")):
                values = rows[column].dropna()
                if values.empty or (column == "distance" and name in exact):
                    continue
                axes.plot(values, [y] * len(values), "o", color=BLUE, markersize=2.5, alpha=0.5, markeredgewidth=0)
                axes.plot([values.median()], [y], marker="|", markersize=9, markeredgewidth=1.4, color=ORANGE)
        for axes in (left, right):
            for y in range(len(names)):
                axes.axhline(y, color=GREY, linewidth=0.2, zorder=0)
        left.set_yticks(range(len(names)), [_with_passes(frame, name) for name in names])
        left.set_ylim(len(names) - 0.5, -0.5)
        left.set_xlim(-0.02, 1.02)
        left.set_xlabel("mass on the truth")
        _log_ticks(right, frame["distance"])
        right.set_xlabel("L1 to exact Shapley" if width > 4.5 else "L1 to exact")
        right.tick_params(left=False)
    columns = [c for c in ("family", "seed", "method", "mass", "distance", "passes") if c in frame]
    shown = frame[frame["method"].isin(names)][columns].reset_index(drop=True)
    shown["distance"] = shown["distance"].where(~shown["method"].isin(exact))
    plants = frame[[c for c in ("family", "seed") if c in frame]].drop_duplicates()
    caption = (
        f"Every method on {len(plants)} pairs whose truth is planted: share of positive effect on the planted components, and "
        "L1 distance of the effects (scaled to the tax) to exact Shapley values. A dot a pair, bars: medians; in brackets the "
        "median cost in forward passes."
    )
    return Drawn(figure, shown, caption)


def _log_ticks(axes: Axes, values: pd.Series) -> None:
    """A log axis with a few plain numbers on it."""
    axes.set_xscale("log")
    shown = values[values > 0]
    low, high = float(shown.min()), float(shown.max())
    axes.set_xlim(low / 1.3, high * 1.3)
    between = (1, 3) if high < 1000 * low else (1,)
    marks = [m * 10.0**e for e in range(-4, 4) for m in between if low / 1.3 <= m * 10.0**e <= high * 1.3]
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _with_passes(frame: pd.DataFrame, name: str) -> str:
    return f"{name} ({frame.loc[frame['method'] == name, 'passes'].median():.0f})"
