"""The frontier stage: what undoing parts of the update returns and costs."""

from __future__ import annotations

from taxlens.analysis.frontier.frontier_tables import (
    FRONTIER,
    FRONTIER_COMPARISON,
    FRONTIER_LEAKS,
    FRONTIER_MATCHED,
    FRONTIER_STABILITY,
)
from taxlens.analysis.weights.export_tables import PLAN_NAMES
from taxlens.core.lazy import Lazy
from taxlens.stages.frontier.frontier_section import FrontierSection
from taxlens.stages.stage import Figure, Stage, Words

_DRAWINGS = "taxlens.stages.frontier.frontier_drawings"

FRONTIER_STAGE = Stage(
    "frontier",
    "Measure what it costs to undo the tax.",
    compute=Lazy("taxlens.stages.frontier.frontier_run:stage_frontier"),
    shared=True,
    reads=("split", "attribution.tolerance", "attribution.max_gradients", "tax.bootstrap"),
    section=FrontierSection,
    key="frontier",
    always=False,
    tables=(FRONTIER, FRONTIER_COMPARISON, FRONTIER_MATCHED, FRONTIER_LEAKS, FRONTIER_STABILITY, PLAN_NAMES),
    summary=("frontier",),
    figures=(
        Figure(
            "frontier", ("frontier",), Lazy(f"{_DRAWINGS}:frontier_drawings"), group="Getting it back",
            files=("restoration", "front", "predicted"), first=("restoration_*", "front_*", "predicted_*"),
        ),
        Figure(
            "figure1", ("frontier", "attribution", "closure"), Lazy(f"{_DRAWINGS}:figure1_drawings"), ("truth",),
            group="Getting it back", first=("figure1",), rank=0,
        ),
    ),
    cost=Lazy("taxlens.stages.frontier.frontier_run:frontier_cost_of"),
    words=Words(
        clauses=Lazy("taxlens.stages.frontier.frontier_words:frontier_clauses"),
        closing=Lazy("taxlens.stages.frontier.frontier_words:frontier_closing"),
        limits=Lazy("taxlens.stages.frontier.frontier_words:frontier_limits"),
        terminal=Lazy("taxlens.stages.frontier.frontier_words:frontier_terminal"),
        methods=Lazy("taxlens.stages.frontier.frontier_words:frontier_methods"),
        latex=Lazy("taxlens.stages.frontier.frontier_words:frontier_latex"),
    ),
    check=Lazy("taxlens.stages.frontier.frontier_check:check_frontier"),
)  # fmt: skip
