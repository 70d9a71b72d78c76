"""The edit stage: every way of buying the capability back, on the same items."""

from __future__ import annotations

from taxlens.analysis.editors.editor_tables import EDITOR_SETTINGS, EDITORS_TABLE
from taxlens.core.lazy import Lazy
from taxlens.stages.edit.edit_section import EditSection
from taxlens.stages.stage import Stage, Words

EDIT_STAGE = Stage(
    "edit",
    "Compare editors that undo the tax.",
    compute=Lazy("taxlens.stages.edit.edit_run:stage_edit"),
    reads=("split", "tax.bootstrap"),
    section=EditSection,
    key="edit",
    always=False,
    tables=(EDITORS_TABLE, EDITOR_SETTINGS),
    summary=("editors",),
    words=Words(
        closing=Lazy("taxlens.stages.edit.edit_words:edit_closing"),
        limits=Lazy("taxlens.stages.edit.edit_words:edit_limits"),
        terminal=Lazy("taxlens.stages.edit.edit_words:edit_terminal"),
    ),
    check=Lazy("taxlens.stages.edit.edit_run:check_edit"),
    cost=Lazy("taxlens.stages.edit.edit_run:edit_cost"),
)
