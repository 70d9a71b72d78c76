"""The feature map: what each latent's activity changed by against what it cost; and what was given back."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, BLUE, GREY, SERIES, SKY, Drawn, effect_label, new_figure, paper_style, written
from taxlens.words.amounts import unit_of

ORDER = ("leading", "all", "matched_mass", "matched_rate", "adl", "pca", "probe", "random_rank", "eigenvectors")


def draw_feature_map(
    features: pd.DataFrame, latents: pd.DataFrame, *, suite: str, metric: str, dictionary: str, width: float = 5.5
) -> Drawn:
    """Draw the change of every listed latent's activity against its effect on the tax.

    Args:
        features: features.csv; latents: features_latents.csv [rows, columns] each.
        suite, metric, dictionary: which account.
        width: inches.

    Raises:
        UsageError: no latent is in both tables.
    """
    mine = features[
        (features["suite"] == suite) & (features["metric"] == metric) & (features["dictionary"] == dictionary)
        & (features["level"] == "latent")
    ]  # fmt: skip
    other = latents[(latents["suite"] == suite) & (latents["dictionary"] == dictionary)]
    both = mine.merge(other, on="latent", suffixes=("", "_activity"))
    if both.empty:
        raise UsageError(explain("no latent is in both tables.", [("suite", suite), ("dictionary", dictionary)]))
    both["effect"] *= unit_of(metric)[1]
    told = both["p_adjusted"].astype(float) < 0.05
    with paper_style():
        figure = new_figure(width, 0.62 * width if width < 4.5 else 2.6)
        axes = figure.subplots()
        for kept, colour, label in ((~told, GREY, "not distinguishable from zero"), (told, BLUE, "adjusted p < .05")):
            part = both[kept]
            axes.plot(part["difference"], part["effect"], ls="", marker="o", color=colour, label=label)
        axes.axhline(0, color=BLACK, lw=0.5)
        axes.axvline(0, color=BLACK, lw=0.5)
        largest = both.reindex(both["effect"].abs().sort_values(ascending=False).index).head(5)
        for row in largest.itertuples():
            axes.annotate(
                str(row.latent), (row.difference, row.effect), fontsize=6, xytext=(3, 2), textcoords="offset points"
            )
        axes.set_xlabel("activity, aligned minus base (mean code of a token)")
        axes.set_ylabel(effect_label("effect on", metric, width=3))
        axes.margins(0.1)
        axes.legend(loc="best")
    plotted = both[["latent", "difference", "effect", "p_adjusted"]].reset_index(drop=True)
    caption = (
        f"Listed latents of {dictionary} on {suite}: change of their mean code against their part of the tax in "
        f"{written(metric)}; positive is loss. p is adjusted over all latents that fire."
    )
    return Drawn(figure, plotted, caption)


def draw_given_back(frame: pd.DataFrame, *, suite: str, metric: str, dictionary: str, width: float = 5.5) -> Drawn:
    """Draw what leading latents, controls and rivals return of the tax on items they were not chosen on, both sides.

    Args:
        frame: features_controls.csv [rows, columns].
        suite, metric, dictionary: which account.
        width: inches.

    Raises:
        UsageError: nothing was given back in this account.
    """
    mine = frame[(frame["suite"] == suite) & (frame["metric"] == metric) & (frame["dictionary"] == dictionary)]
    if mine.empty:
        raise UsageError(explain("nothing was given back.", [("suite", suite), ("metric", metric)]))
    kinds = [what for what in ORDER if what in set(mine["what"])]
    sides = [side for side in ("restored", "removed") if side in set(mine["side"])]
    with paper_style():
        figure = new_figure(width, 0.9 + 0.26 * len(kinds))
        axes = figure.subplots()
        for number, side in enumerate(sides):
            colour, marker, _ = SERIES[number]
            for place, what in enumerate(kinds):
                rows = mine[(mine["side"] == side) & (mine["what"] == what)]
                y = place + 0.16 * (2 * number - 1)
                axes.plot(rows["returned"], np.full(len(rows), y), ls="", marker=marker, color=colour, alpha=0.9)
                if len(rows) == 1:
                    low, high = np.clip([rows["low"].iloc[0], rows["high"].iloc[0]], -3, 3)
                    axes.plot([low, high], [y, y], color=colour, lw=0.8)
                predicted = rows["predicted"].dropna()
                if len(predicted) == 1:
                    axes.plot(predicted, [y], ls="", marker="|", color=BLACK, ms=7)
            axes.plot([], [], ls="", marker=marker, color=colour, label=side)
        axes.plot([], [], ls="", marker="|", color=BLACK, ms=7, label="predicted by the account")
        axes.axvline(0, color=BLACK, lw=0.6)
        axes.axvline(1, color=SKY, lw=0.6)
        axes.set_yticks(range(len(kinds)), [what.replace("_", " ") for what in kinds])
        axes.set_ylim(len(kinds) - 0.5, -0.6)
        axes.set_xlabel("share of the tax returned")
        figure.legend(loc="outside upper center", ncols=3)
    plotted = mine[["what", "draw", "side", "predicted", "returned", "low", "high"]].reset_index(drop=True)
    caption = (
        f"What is returned of the tax of {suite} in {written(metric)} on held-out groups: restored in aligned and removed from "
        f"base, by leading latents of {dictionary}, all latents, controls that carry as much of the change or fire as often, "
        "and rivals without a dictionary; 95 % intervals by group bootstrap. Eigenvectors are fitted to the tax and are a warning."
    )
    return Drawn(figure, plotted, caption)
