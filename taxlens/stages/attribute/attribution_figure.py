"""The attribution bar: components' effects that end in the measured tax, with the remainder drawn."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from taxlens.analysis.interventions.effects import APART, APART_KIND
from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import (
    GREY,
    KINDS,
    Drawn,
    effect_label,
    interval_words,
    new_figure,
    paper_style,
    written,
)
from taxlens.words.amounts import unit_of


def attribution_rows(
    frame: pd.DataFrame,
    closure: pd.DataFrame,
    *,
    suite: str,
    metric: str,
    level: str = "component",
    leading: int = 10,
) -> pd.DataFrame:
    """Return what the bar shows: the leading components, all others as one, the unexplained, the measured tax.

    Where the two models are asked in different prompts or compute by different configs, what that is worth has a bar of
    its own before the unexplained.

    Args:
        frame: attribution.csv [rows, columns].
        closure: closure.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        level: which level.
        leading: how many components get a bar of their own.
    """
    here = (
        (frame["suite"] == suite)
        & (frame["metric"] == metric)
        & (frame["level"] == level)
        & (frame["method"] == "path")
    )
    apart = frame[here & (frame["kind"] == APART_KIND)]
    rows = frame[here & (frame["kind"] != APART_KIND)]
    closed = closure[(closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")]
    if rows.empty or closed.empty:
        wanted = [("suite", suite), ("metric", metric), ("level", level)]
        raise UsageError(explain("the run holds no path attribution of that kind.", wanted))
    order = rows["effect"].abs().sort_values(ascending=False, kind="stable").index
    residual, tax = float(closed["residual"].iloc[0]), float(closed["tax"].iloc[0])
    leading = min(leading, int((rows["effect"] != 0).sum()))
    top = rows.loc[order[:leading]].sort_values("effect", ascending=tax < 0, kind="stable")
    rest = float(rows.loc[order[leading:], "effect"].sum())
    bars = [(r.component, r.kind, r.effect, r.low, r.high) for r in top.itertuples()]
    if len(order) > leading:
        bars.append((f"{len(order) - leading} others", "others", rest, float("nan"), float("nan")))
    bars += [(APART, APART_KIND, r.effect, r.low, r.high) for r in apart.itertuples()]
    bars.append(("unexplained", "residual", residual, float("nan"), float("nan")))
    bars.append(("measured tax", "tax", tax, float("nan"), float("nan")))
    return pd.DataFrame(bars, columns=["component", "kind", "effect", "low", "high"])


def draw_attribution(
    frame: pd.DataFrame,
    *,
    closure: pd.DataFrame,
    suite: str,
    metric: str = "probability",
    level: str = "component",
    width: float = 5.5,
    names: str = "",
) -> Drawn:
    """Draw the waterfall of components' effects from zero to the measured tax.

    Args:
        frame: attribution.csv [rows, columns].
        closure: closure.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        level: which level of components.
        width: inches.
        names: "base against aligned" for the caption.
    """
    bars = attribution_rows(frame, closure, suite=suite, metric=metric, level=level)
    unit, scale = unit_of(metric)
    doubt = unsettled(closure, suite=suite, metric=metric)
    with paper_style():
        figure = new_figure(width, 0.85 + 0.19 * len(bars))
        axes = figure.subplots()
        waterfall(axes, bars, scale=scale)
        axes.set_xlabel(effect_label("effect on", metric, width=width) + (" *" if doubt else ""))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=6 if width > 4.5 else 3)
    tax = bars.loc[bars["kind"] == "tax", "effect"].iloc[0]
    closed = interval_words("the attributed", "their own")
    caption = (
        f"Which {_LEVELS.get(level, level)} cost {written(metric)} on {suite}{f' ({names})' if names else ''}: path attribution; "
        f"bars run from zero to the measured tax of {tax * scale:.3g} {unit}, with the unexplained remainder drawn. "
        f"Whiskers: {closed}.{f' * Not settled by the stopping rule: {doubt}.' if doubt else ''}"
    )
    return Drawn(figure, bars, caption)


_LEVELS = {
    "component": "components", "head": "heads and components", "neuron": "neurons", "singular": "directions of the weight change",
}  # fmt: skip
SPREAD = 0.1
"""Where no component carries this share of the tax, a map of all of them says more than bars of a few."""


def is_spread(frame: pd.DataFrame, *, suite: str, metric: str) -> bool:
    """Whether no component carries a tenth of what all path effects of a suite are together, in size.

    Args:
        frame: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
    """
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & (frame["level"] == "component")
    effects = frame.loc[here & (frame["method"] == "path") & (frame["kind"] != APART_KIND), "effect"]
    return len(effects) > 0 and effects.abs().max() < SPREAD * abs(effects.sum())


def unsettled(closure: pd.DataFrame, *, suite: str, metric: str) -> str:
    """Return why the path's account is not settled; blank where it is (or was not judged).

    By its own stopping rule, or because perplexity rises too far between base and aligned for the path to be walked.

    Args:
        closure: closure.csv [rows, columns].
        suite: which suite.
        metric: which metric.
    """
    here = (closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")
    rows = closure[here]
    if "fit" in rows and (rows["fit"].astype(str) == "False").any():
        return f"perplexity along the path rises {100 * float(rows['barrier'].max()):.0f} % above the line between its ends"
    if "closed" not in rows:
        return ""
    rows = rows[rows["closed"].astype(str) == "False"]
    return "" if rows.empty else str(rows["reason"].iloc[0])


def waterfall(axes: Axes, bars: pd.DataFrame, *, scale: float) -> None:
    """Draw bars [rows: component, kind, effect, low, high], each from where the last ended; "tax" from zero."""
    start = 0.0
    for y, bar in enumerate(bars.itertuples()):
        left = 0.0 if bar.kind == "tax" else start
        known = bar.kind in KINDS and bar.kind not in axes.get_legend_handles_labels()[1]
        axes.barh(
            y, bar.effect * scale, left=left * scale, height=0.62, label=bar.kind if known else None,
            **_bar_style(str(bar.kind)),
        )  # fmt: skip
        if pd.notna(bar.low):
            axes.plot([(left + bar.low) * scale, (left + bar.high) * scale], [y, y], color="black", linewidth=0.7)
        end = (left + bar.effect) * scale
        if y + 1 < len(bars):
            axes.plot([end, end], [y - 0.31, y + 1.31], color=GREY, linewidth=0.5)
        start = left + bar.effect
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(bars)), list(bars["component"]))
    axes.set_ylim(len(bars) - 0.5, -0.6)
    axes.use_sticky_edges = False
    axes.margins(x=0.02)


def _bar_style(kind: str) -> dict[str, Any]:
    if kind == "tax":
        return {"color": "black"}
    if kind in ("residual", APART_KIND):
        hatch = "////" if kind == "residual" else "...."
        return {"color": "white", "edgecolor": "black", "hatch": hatch, "linewidth": 0.6}
    return {"color": KINDS.get(kind, GREY), "edgecolor": "white", "linewidth": 0.4}
