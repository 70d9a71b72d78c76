"""The diagnose stage: in which state each capability is."""

from __future__ import annotations

from taxlens.analysis.state.state_tables import EVIDENCE, STATES, STEERING
from taxlens.core.lazy import Lazy
from taxlens.stages.diagnose.diagnose_section import DiagnoseSection
from taxlens.stages.stage import Figure, Stage, Words

_DRAWINGS = "taxlens.stages.diagnose.diagnose_drawings"

DIAGNOSE_STAGE = Stage(
    "diagnose",
    "Classify what each suite lost.",
    compute=Lazy("taxlens.stages.diagnose.diagnose_run:stage_diagnose"),
    shared=True,
    reads=("tax.bootstrap", "frontier.benefit", "frontier.against"),
    section=DiagnoseSection,
    key="diagnose",
    always=False,
    uses=("attribute",),
    tables=(STATES, EVIDENCE, STEERING),
    summary=("states",),
    figures=(
        Figure("states", ("states",), Lazy(f"{_DRAWINGS}:states_drawings"), group="State", first=("states",)),
        Figure(
            "evidence", ("evidence",), Lazy(f"{_DRAWINGS}:evidence_drawings"), group="State", first=("evidence_SUITE",)
        ),
    ),
    words=Words(
        clauses=Lazy("taxlens.stages.diagnose.diagnose_words:diagnose_clauses"),
        limits=Lazy("taxlens.stages.diagnose.diagnose_words:diagnose_limits"),
        terminal=Lazy("taxlens.stages.diagnose.diagnose_words:diagnose_terminal"),
        methods=Lazy("taxlens.stages.diagnose.diagnose_words:diagnose_methods"),
        latex=Lazy("taxlens.stages.diagnose.diagnose_words:diagnose_latex"),
    ),
    check=Lazy("taxlens.stages.diagnose.diagnose_check:check_diagnose"),
    cost=Lazy("taxlens.stages.diagnose.diagnose_cost:diagnose_cost"),
)
