"""Both models' prompts on two axes, and along the direction of what alignment was for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.curves import integer_ticks
from taxlens.figures.drawings import Jobs, Tables
from taxlens.figures.style import BLUE, GREY, ORANGE, SERIES, Drawn, new_figure, paper_style

_MOST_SUITES = len(SERIES)


def plane_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind activation_plane: (file name, function that draws)."""
    frame = tables["activation_plane"]
    for template in dict.fromkeys(frame["template"]):
        yield f"activation_plane_{template}", lambda t=template: draw_plane(frame, template=t, width=width)


def refusal_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind refusal_direction: (file name, function that draws)."""
    frame = tables["refusal_projections"]
    for template in dict.fromkeys(frame["template"]):
        yield (
            f"refusal_direction_{template}",
            lambda t=template: draw_refusal(frame, directions=tables["refusal_direction"], template=t, width=width),
        )


def draw_plane(frame: pd.DataFrame, *, template: str = "plain", width: float = 5.5) -> Drawn:
    """Draw prompts of both models on the two leading axes of a few layers: hollow base, filled aligned, a colour a suite.

    Args:
        frame: activation_plane.csv [rows, columns].
        template: which template.
        width: inches.

    Raises:
        UsageError: the table holds nothing of that template.
    """
    rows = frame[frame["template"] == template]
    if rows.empty:
        raise UsageError(explain("the run holds no plane of activations.", [("template", template)]))
    suites = list(dict.fromkeys(rows["suite"]))
    shown, layers = suites[:_MOST_SUITES], sorted(rows["layer"].unique())
    panels = 3 if width > 4.5 else 2
    chosen = [layers[n] for n in np.unique(np.linspace(0, len(layers) - 1, min(panels, len(layers))).astype(int))]
    rows = rows[rows["suite"].isin(shown) & rows["layer"].isin(chosen)]
    with paper_style():
        lines = -(-(len(shown) + 2) // (4 if width > 4.5 else 3))
        figure = new_figure(width, width / len(chosen) + 0.35 + 0.14 * lines)
        axes = np.atleast_1d(figure.subplots(1, len(chosen)))
        for place, layer in zip(axes, chosen, strict=True):
            here = rows[rows["layer"] == layer]
            for suite, (colour, marker, _) in zip(shown, SERIES, strict=False):
                for model, face in (("base", "none"), ("aligned", colour)):
                    mine = here[(here["suite"] == suite) & (here["model"] == model)]
                    place.scatter(
                        mine["x"], mine["y"], s=9, marker=marker, facecolors=face, edgecolors=colour, linewidths=0.5,
                        alpha=0.75, label=suite if model == "aligned" and place is axes[0] else None,
                    )  # fmt: skip
            place.set_title(f"layer {layer}, {100 * float(here['share'].iloc[0]):.0f} % of variance", loc="left")
            place.set_xticks([])
            place.set_yticks([])
        axes[0].set_ylabel("second axis")
        for place in axes:
            place.set_xlabel("first axis")
        figure.legend(loc="outside upper center", ncols=4 if width > 4.5 else 3)
    left = f" {len(suites) - len(shown)} more suites are in the table." if len(suites) > len(shown) else ""
    caption = (
        f"The last token of each prompt ({template}) in both models' residual streams, on the two leading principal axes of "
        f"both models' prompts together. Hollow: base; filled: aligned; a colour and shape each suite.{left} "
        "Axes are those of each layer. Distance shows movement, not loss."
    )
    return Drawn(figure, rows[["layer", "suite", "item", "model", "x", "y", "share"]].reset_index(drop=True), caption)


def draw_refusal(
    frame: pd.DataFrame, *, directions: pd.DataFrame, template: str = "plain", width: float = 5.5
) -> Drawn:
    """Draw both models' prompts along aligned's direction at the layer that tells them apart best, and its course by layer.

    Args:
        frame: refusal_projections.csv [rows, columns].
        directions: refusal_direction.csv.
        template: which template.
        width: inches.

    Raises:
        UsageError: the table holds nothing of that template.
    """
    rows, course = (
        frame[frame["template"] == template],
        directions[directions["template"] == template].sort_values("layer"),
    )
    if rows.empty or course.empty:
        raise UsageError(explain("the run holds no projections.", [("template", template)]))
    layer = (
        int(course.loc[course["auc_aligned"].idxmax(), "layer"])
        if course["auc_aligned"].notna().any()
        else int(course["layer"].iloc[-1])
    )
    rows = rows[rows["layer"] == layer].dropna(subset=["value"])
    edges = np.linspace(rows["value"].min(), rows["value"].max() + 1e-9, 25)
    with paper_style():
        figure = new_figure(width, 2.5 if width > 4.5 else 3.9)
        grid = figure.subplots(2, 2, width_ratios=(3, 2)) if width > 4.5 else figure.subplots(4, 1)
        upper, lower = (grid[0, 0], grid[1, 0]) if width > 4.5 else (grid[0], grid[1])
        lower.sharex(upper)
        for axes, model in ((upper, "base"), (lower, "aligned")):
            for kind, colour, hatch, name in (
                ("capability", BLUE, "", "other prompts"),
                ("benefit", ORANGE, "////", "prompts to refuse"),
            ):
                mine = rows[(rows["model"] == model) & (rows["kind"] == kind)]["value"]
                axes.hist(mine, bins=edges, color=colour, alpha=0.6, hatch=hatch, edgecolor=colour, linewidth=0.3,
                          label=name if model == "base" else None, weights=np.full(len(mine), 100 / max(1, len(mine))))  # fmt: skip
            axes.set_ylabel(f"{model} (%)")
        lower.set_xlabel(f"place along the direction, layer {layer}")
        right, under = (grid[0, 1], grid[1, 1]) if width > 4.5 else (grid[2], grid[3])
        for name, colour, marker, line in (("base", BLUE, "o", "-"), ("aligned", ORANGE, "s", "--")):
            right.plot(course["layer"], course[f"auc_{name}"], color=colour, marker=marker, linestyle=line)
        right.axhline(0.5, color=GREY, linewidth=0.6)
        right.set_ylabel("AUC")
        under.plot(course["layer"], course["cosine"], color=GREY, marker="D")
        under.set_ylabel("cosine")
        under.set_xlabel("layer")
        for axes in (right, under):
            integer_ticks(axes)
        figure.legend(loc="outside upper center", ncols=2)
    caption = (
        f"Both models' prompts ({template}) along the difference of means between prompts of the benefit suite and all other "
        f"prompts in aligned, fitted on one half of the groups and read on the other: 0 and 1 are aligned's two means. Left: "
        f"layer {layer}, where aligned separates them best. Right: how well each model's prompts separate along it, by "
        "layer (circles: base, squares: aligned, grey: chance), and the cosine of the two models' own differences of means."
    )
    plotted = rows[["layer", "suite", "item", "kind", "model", "value"]].reset_index(drop=True)
    return Drawn(figure, plotted, caption)
