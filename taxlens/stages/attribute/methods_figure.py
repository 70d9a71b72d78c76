"""Methods side by side: what each of them gives the same components, with whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pandas as pd

from taxlens.analysis.interventions.effects import APART_KIND
from taxlens.analysis.interventions.method_registry import METHODS
from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import SERIES, Drawn, effect_label, new_figure, paper_style, written
from taxlens.words.amounts import unit_of


def methods_rows(
    frame: pd.DataFrame, *, suite: str, metric: str, level: str = "component", leading: int = 10
) -> pd.DataFrame:
    """Return the rows of attribution.csv that the figure shows, with `sum`: all effects of the method there.

    Args:
        frame: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        level: which level.
        leading: how many components, by the first method's largest effects.
    """
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric) & (frame["level"] == level)]
    rows = rows[rows["kind"] != APART_KIND] if "kind" in rows else rows
    if rows.empty:
        wanted = [("suite", suite), ("metric", metric), ("level", level)]
        raise UsageError(explain("the table holds no effects of that kind.", wanted))
    methods = [method for method in METHODS if method in set(rows["method"])]
    others = [rows.loc[rows["method"] == method, "component"] for method in methods]
    common = set(others[0]).intersection(*others[1:])
    first = rows[(rows["method"] == methods[0]) & rows["component"].isin(common)]
    names = list(
        first.loc[first["effect"].abs().sort_values(ascending=False, kind="stable").index[:leading], "component"]
    )
    shown = rows[rows["component"].isin(names)]
    shown = shown.assign(
        sum=shown["method"].map(rows.groupby("method")["effect"].sum()),
        place=shown["component"].map({name: place for place, name in enumerate(names)}),
        rank=shown["method"].map({method: place for place, method in enumerate(methods)}),
    ).sort_values(["rank", "place"], kind="stable")
    return shown[["component", "method", "effect", "low", "high", "sum"]].reset_index(drop=True)


def draw_methods(
    frame: pd.DataFrame, *, suite: str, metric: str = "probability", level: str = "component", width: float = 5.5
) -> Drawn:
    """Draw the effects of the leading components by every method in the table, a marker a method.

    Args:
        frame: attribution.csv [rows, columns].
        suite: which suite.
        metric: which metric.
        level: which level.
        width: inches.
    """
    rows = methods_rows(frame, suite=suite, metric=metric, level=level)
    names, methods = list(dict.fromkeys(rows["component"])), list(dict.fromkeys(rows["method"]))
    unit, scale = unit_of(metric)
    with paper_style():
        figure = new_figure(width, 0.9 + (0.07 + 0.06 * len(methods)) * len(names))
        axes = figure.subplots()
        for place, (method, (colour, marker, _)) in enumerate(zip(methods, cycle(SERIES))):
            shift = (place - (len(methods) - 1) / 2) * 0.7 / max(len(methods), 2)
            part = rows[rows["method"] == method]
            at = [names.index(name) + shift for name in part["component"]]
            axes.hlines(at, part["low"] * scale, part["high"] * scale, color=colour, linewidth=0.8)
            axes.plot(part["effect"] * scale, at, color=colour, marker=marker, linestyle="none", label=method)
        axes.axvline(0, color="black", linewidth=0.6)
        for y in range(1, len(names)):
            axes.axhline(y - 0.5, color="#e5e5e5", linewidth=0.4, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(effect_label("effect on", metric, width=width))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3 if width < 4 else 6)
    sums = "; ".join(
        f"{method.replace('_', ' ')} {part['sum'].iloc[0] * scale:.3g}"
        for method, part in rows.groupby("method", sort=False)
    )
    caption = (
        f"Effect of the leading components on {suite} in {written(metric)} by method. {_summing(methods)} "
        f"Sums over the {level}s that were run ({unit}): {sums}. "
        "Whiskers: 95 % intervals by group bootstrap."
    )
    return Drawn(figure, rows, caption)


def _summing(methods: Sequence[str]) -> str:
    """Which methods' effects sum to the tax, in a sentence."""
    names = {sums: [m.replace("_", " ") for m in methods if METHODS[m].sums is sums] for sums in (True, False)}
    first = [f"Effects of {', '.join(names[True])} sum to the tax"] if names[True] else []
    rest = [
        f"{'those' if first else 'Effects'} of {', '.join(names[False])} need not{'' if first else ' sum to the tax'}"
    ]
    return f"{'; '.join([*first, *(rest if names[False] else [])])}."
