"""What drawing takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.figures.figures_section import FigureSection
from taxlens.stages.needs import DRAWING
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import figure_count, once, seconds_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


BYTES = 150_000
"""Of a figure's files together."""


def figures_cost(job: RunContext, section: FigureSection) -> StageCost:
    """Return what the figures take: one is drawn and saved, for as many as there will be."""
    count = figure_count(job)
    return StageCost(
        count * once(job, "figure", lambda: seconds_of(lambda: _draw(job))) / 60, disk=count * BYTES, memory=DRAWING
    )


def _draw(job: RunContext) -> None:
    import tempfile

    import pandas as pd

    from taxlens.figures.save import save_figure
    from taxlens.figures.style import Drawn, new_figure, paper_style

    with tempfile.TemporaryDirectory() as folder, paper_style():
        figure = new_figure(5.5, 2.5)
        axes = figure.subplots(1, 2)
        for panel in axes:
            for line in range(8):
                panel.plot(range(30), [line * x for x in range(30)], marker="o", label=str(line))
            panel.legend()
        save_figure(Drawn(figure, pd.DataFrame({"x": range(240)}), "A trial."), folder, "trial")
