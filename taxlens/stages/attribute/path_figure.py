"""The path's profile: what every suite and perplexity do between base and aligned, against the chord."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, GREY, SERIES, Drawn, new_figure, paper_style


def draw_profile(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw every suite's metric along the weight path, and the chord between its ends.

    Args:
        frame: path.csv [rows, columns].
        metric: which metric (perplexity has a panel of its own if it is in the table).
        width: inches.
    """
    panels = [m for m in (metric, "perplexity") if m in set(frame["metric"])]
    if not panels:
        raise UsageError(explain("the run holds no profile.", [("metric", metric)]))
    with paper_style():
        figure = new_figure(width, 2.2)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        parts = []
        for axes, panel in zip(grid, panels):
            rows = frame[frame["metric"] == panel].sort_values("t", kind="stable")
            lines = list(rows.groupby(["suite", "template"], sort=False))
            for number, (((suite, template), line), (colour, marker, dash)) in enumerate(zip(lines, SERIES * 4)):
                axes.plot(line["t"], line["chord"], color=GREY, linewidth=0.5)
                if panel == "perplexity":
                    colour, marker, dash = BLACK, "os"[number % 2], ("-", "--")[number % 2]
                    if len(lines) > 1:
                        end = (1.0, line["value"].iloc[-1])
                        axes.annotate(
                            str(template), end, xytext=(0, 4), textcoords="offset points", ha="right", fontsize=6
                        )
                axes.plot(line["t"], line["value"], color=colour, marker=marker, linestyle=dash, label=str(suite))
                parts.append(line)
            axes.set_xlabel("t (0: base, 1: aligned)")
            rise = float((rows["value"] / rows["chord"] - 1).max()) if panel == "perplexity" else 0.0
            axes.set_title(
                f"{panel}, barrier {100 * max(rise, 0.0):.0f} %" if panel == "perplexity" else panel, loc="left"
            )
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if width < 4.5 else 6)
    caption = (
        "Profile along the weight path. Grey: the chord between the ends; an excess of perplexity over it is a barrier."
    )
    return Drawn(figure, pd.concat(parts, ignore_index=True), caption)
