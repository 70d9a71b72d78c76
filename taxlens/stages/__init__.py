"""The stages of a run, each in a folder of its own, and the tables that they write."""

from __future__ import annotations

from taxlens.analysis.answers import answer_tables as answers
from taxlens.analysis.frontier import frontier_tables as frontier
from taxlens.analysis.interventions import effect_tables as effects
from taxlens.analysis.readings import reading_tables as readings
from taxlens.analysis.state import state_tables as state
from taxlens.analysis.tax import tax_tables as tax
from taxlens.analysis.weights import export_tables as export
from taxlens.core.table import Table
from taxlens.stages.probe import probe_tables as probe
from taxlens.stages.similarity import similarity_tables as similarity

_MODULES = (tax, answers, probe, similarity, effects, readings, export, state, frontier)

TABLES: dict[str, Table] = {
    table.name: table for module in _MODULES for table in vars(module).values() if isinstance(table, Table)
}
"""Every table that a run can hold, by name."""
