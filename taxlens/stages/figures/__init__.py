"""The figures stage: every figure that a run's tables allow."""

from __future__ import annotations

from taxlens.core.lazy import Lazy
from taxlens.stages.figures.figures_section import FigureSection
from taxlens.stages.stage import Figure, Stage

_DRAWINGS = "taxlens.stages.figures.shared_drawings"

FIGURES_STAGE = Stage(
    "figures",
    "Draw a run's figures from its tables.",
    compute=Lazy("taxlens.stages.figures.drawing:stage_figures"),
    reads=("pair",),
    section=FigureSection,
    key="figures",
    figures=(
        Figure("comparison", ("comparison",), Lazy(f"{_DRAWINGS}:comparison_drawings"), group="Tax"),
        Figure("proving_ground", ("proving_ground",), Lazy(f"{_DRAWINGS}:proving_ground_drawings")),
    ),
    command=False,
    cost=Lazy("taxlens.stages.figures.figures_cost:figures_cost"),
)
