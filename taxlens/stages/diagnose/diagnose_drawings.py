"""Which drawings the tables of a diagnosis give."""

from __future__ import annotations

from taxlens.figures.drawings import Jobs, Tables
from taxlens.stages.diagnose.evidence_figure import draw_evidence
from taxlens.stages.diagnose.states_figure import draw_states


def states_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind states: (file name, function that draws)."""
    if tables["states"]["layer"].notna().any():
        yield "states", lambda: draw_states(tables["states"], width=width)


def evidence_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind evidence: (file name, function that draws)."""
    frame = tables["evidence"]
    for suite in dict.fromkeys(frame.loc[frame["layer"].notna(), "suite"]):
        yield f"evidence_{suite}", lambda s=suite: draw_evidence(frame, suite=s, width=width)
