"""The stages of a run, each declared in a folder of its own. `STAGES` is the only place where a stage is registered."""

from __future__ import annotations

from taxlens.stages.attribute import ATTRIBUTE_STAGE
from taxlens.stages.capture import CAPTURE_STAGE
from taxlens.stages.diagnose import DIAGNOSE_STAGE
from taxlens.stages.edit import EDIT_STAGE
from taxlens.stages.features import FEATURES_STAGE
from taxlens.stages.figures import FIGURES_STAGE
from taxlens.stages.frontier import FRONTIER_STAGE
from taxlens.stages.lens import LENS_STAGE
from taxlens.stages.probe import PROBE_STAGE
from taxlens.stages.report import REPORT_STAGE
from taxlens.stages.similarity import SIMILARITY_STAGE
from taxlens.stages.stage import Stage, figures_of, tables_of
from taxlens.stages.tax import TAX_STAGE

STAGES: tuple[Stage, ...] = (
    TAX_STAGE,
    CAPTURE_STAGE,
    PROBE_STAGE,
    SIMILARITY_STAGE,
    LENS_STAGE,
    ATTRIBUTE_STAGE,
    DIAGNOSE_STAGE,
    FEATURES_STAGE,
    FRONTIER_STAGE,
    EDIT_STAGE,
    FIGURES_STAGE,
    REPORT_STAGE,
)
"""Every stage, in the order in which `taxlens run` does them."""

TABLES = tables_of(STAGES)
"""Every table that a run can hold, by name."""

FIGURES = figures_of(STAGES)
"""Every kind of figure, by name."""
