"""Figure 1 of a run: the front, prediction against measurement, and where the tax sits, one page wide."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from taxlens.figures.style import BLUE, Drawn, new_figure, paper_style
from taxlens.stages.attribute.attribution_figure import attribution_rows, waterfall
from taxlens.stages.attribute.truth_figure import mass_on_truth
from taxlens.stages.frontier.frontier_figure import (
    effect_rows,
    fitted,
    front_panel,
    front_words,
    predicted_panel,
    predicted_words,
)
from taxlens.words.amounts import unit_of


def draw_figure1(
    frame: pd.DataFrame,
    *,
    attribution: pd.DataFrame,
    closure: pd.DataFrame,
    truth: pd.DataFrame | None = None,
    metric: str = "probability",
    width: float = 5.5,
) -> Drawn:
    """Draw the composite.

    (A) benefit kept against tax returned, a curve an order; (B) predicted against measured effect; (C) on a planted
    pair the share of positive effect on the planted components by method, otherwise the component waterfall.

    Args:
        frame: frontier.csv [rows, columns].
        attribution: attribution.csv [rows, columns].
        closure: closure.csv [rows, columns].
        truth: planted components [rows: suite, component], if the pair is a planted one.
        metric: which metric.
        width: inches; one page.
    """
    taxed = closure[(closure["metric"] == metric) & (closure["method"] == "path")]
    effects = effect_rows(frame, metric)
    slope, r2 = fitted(effects)
    with paper_style():
        figure = new_figure(width, 2.75)
        first, second, third = figure.subplots(1, 3, width_ratios=(1.15, 1, 1.1))
        curves = front_panel(first, frame, metric)
        predicted_panel(second, effects, metric)
        if truth is not None and len(truth):
            masses = mass_on_truth(attribution, truth, metric=metric)
            _mass_panel(third, masses)
            said = "share of positive effect on the planted components, by method"
        else:
            suite = str(taxed.loc[taxed["tax"].abs().idxmax(), "suite"])
            masses = attribution_rows(attribution, closure, suite=suite, metric=metric, leading=7)
            waterfall(third, masses, scale=unit_of(metric)[1])
            third.set_xlabel(f"effect ({unit_of(metric)[0]})")
            said = f"path attribution of {suite}: the leading components, all others, the unexplained, the measured tax"
        for axes, letter in zip((first, second, third), "ABC"):
            axes.set_title(letter, loc="left", fontweight="bold")
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    caption = f"(A) {front_words(frame, metric)}. (B) {predicted_words(effects, metric, slope, r2)}. (C) {said[0].upper()}{said[1:]}."
    parts = [curves.assign(panel="A"), effects.assign(panel="B"), masses.assign(panel="C")]
    plotted = pd.concat(parts, ignore_index=True)
    return Drawn(figure, plotted[["panel", *[c for c in plotted.columns if c != "panel"]]], caption)


def _mass_panel(axes: Axes, masses: pd.DataFrame) -> None:
    names = [str(method).replace("_", " ") for method in masses["method"]]
    axes.barh(range(len(masses)), masses["mass"], height=0.6, color=BLUE)
    for y, mass in enumerate(masses["mass"]):
        axes.text(mass - 0.02, y, f"{mass:.2f}", ha="right", va="center", fontsize=7, color="white")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("mass on the truth")
