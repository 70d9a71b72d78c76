"""The evidence panel: the statistics that tell states apart, by layer, with the thresholds of the rules."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from taxlens.analysis.state.verdict import KEPT_RULES, RULES
from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, Drawn, new_figure, paper_style

PANELS = (
    ("D", "D: fresh probe", ("D",)),
    ("X", "X: base's probe", ("X",)),
    ("S", "S: Procrustes stitch", ("S",)),
    ("I", "I: base injected", ("I",)),
    ("Z", "Z: steering", ("Z1", "Z4", "Z16")),
    ("A", "A: one direction", ("A",)),
    ("U", "U: subspace removed", ("U",)),
    ("gain", "gain", ("gain",)),
)
_LOOKS = {0: (BLUE, "o", "-"), 1: (ORANGE, "s", "--"), 2: (GREEN, "^", "-.")}


def draw_evidence(frame: pd.DataFrame, *, suite: str, width: float = 5.5) -> Drawn:
    """Draw a suite's evidence by layer, a panel a statistic; controls are grey, thresholds of the rules dotted.

    Args:
        frame: evidence.csv [rows, columns].
        suite: which suite.
        width: inches.
    """
    rows = frame[(frame["suite"] == suite) & frame["layer"].notna()].copy()
    rows["control"] = rows["control"].fillna("").replace("none", "")
    panels = [p for p in PANELS if set(p[2]) & set(rows["statistic"])]
    if not panels:
        raise UsageError(explain("the run holds no evidence by layer of that suite.", [("suite", suite)]))
    columns = 4 if width > 4.5 else 2
    lines = math.ceil(len(panels) / columns)
    shown = []
    with paper_style():
        figure = new_figure(width, 0.55 + 1.12 * lines)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
        for axes, (_, title, statistics) in zip(grid.flat, panels):
            shown.append(_panel(axes, rows, statistics))
            axes.set_title(title, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.remove()
            elif place + columns >= len(panels):
                axes.tick_params(labelbottom=True)
        figure.supxlabel("layer", fontsize=8)
        _legend(figure, rows)
    plotted = pd.concat(shown, ignore_index=True)
    caption = (
        f"Evidence on the state of {suite} by layer, chance-corrected and held out. D: probe fitted on aligned, over base's; X: "
        "base's probe read on aligned; S: aligned's stream mapped by Procrustes into base's upper layers; I: base's stream "
        "injected into aligned; Z: steering of rank 1, 4, 16; A: one direction set to the base's mean; "
        "U: drop when the probe's subspace is removed, aligned over base; "
        "gain: of the capability's direction. Whiskers: 95 % intervals by group bootstrap; grey: controls; dotted: thresholds of "
        "the rules."
    )
    return Drawn(figure, plotted, caption)


def thresholds(statistics: tuple[str, ...]) -> list[float]:
    """Return the values at which some rule asks for one of the statistics."""
    tests = [test for rule in (*RULES, *KEPT_RULES) for test in rule.tests if not test.control]
    found = [bound for test in tests if set(test.statistics) & set(statistics) for bound in (test.least, test.most)]
    return sorted({bound for bound in found if math.isfinite(bound)})


def _panel(axes: Axes, rows: pd.DataFrame, statistics: tuple[str, ...]) -> pd.DataFrame:
    for bound in thresholds(statistics):
        axes.axhline(bound, color=GREY, linewidth=0.6, linestyle=":")
    axes.axhline(0, color="black", linewidth=0.4)
    parts = []
    for place, statistic in enumerate(statistics):
        for control, part in rows[rows["statistic"] == statistic].groupby("control", sort=True):
            part = part.sort_values("layer").dropna(subset=["value"])
            colour, marker, dash = _LOOKS[place]
            if control:
                colour = GREY if control in ("random", "shuffled") else PURPLE
            at = part["layer"].astype(float)
            axes.vlines(at, part["low"], part["high"], color=colour, linewidth=0.6)
            axes.plot(at, part["value"], color=colour, marker=marker, linestyle=dash if not control else ":")
            parts.append(part[["layer", "statistic", "control", "value", "low", "high"]])
    values = pd.concat(parts)[["value"]].to_numpy(float) if parts else []
    top = max(1.1, min(2.0, float(pd.Series(values.ravel()).quantile(0.98)) * 1.1)) if len(values) else 1.1
    axes.set_ylim(-0.25, top)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _legend(figure, rows: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if set(rows["statistic"]) & {"Z1", "Z4", "Z16"}:
        for place, rank in enumerate((1, 4, 16)):
            colour, marker, dash = _LOOKS[place]
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle=dash, label=f"rank {rank} (Z)"))
    controls = sorted(set(rows["control"]) - {""})
    for control in controls:
        colour = GREY if control in ("random", "shuffled") else PURPLE
        handles.append(Line2D([], [], color=colour, linestyle=":", label=f"control: {control}"))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=3 if figure.get_figwidth() < 4.5 else 6)
