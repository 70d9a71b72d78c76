"""What is said of a run's diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taxlens.words.latex_text import booktabs, escaped
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, told_row

if TYPE_CHECKING:
    from rich.table import Table


def diagnose_clauses(run: RunView, suite: str) -> list[str]:
    """Return the state of a suite whose change is told from none."""
    if not run.has("states") or not is_told(told_row(run, suite)):
        return []
    frame = run.table("states")
    overall = frame[(frame["suite"] == suite) & frame["layer"].isna()]
    return [f"state: {overall['state'].iloc[0]}"] if len(overall) else []


def diagnose_limits(run: RunView) -> list[str]:
    """Return which rule gave each state."""
    if not run.has("states"):
        return []
    frame = run.table("states")
    overall = frame[frame["layer"].isna()]
    return [
        f"{row.suite} is called {row.state} because: {row.reason}."
        for row in overall.itertuples()
        if isinstance(row.reason, str)
    ]


def diagnose_terminal(run: RunView) -> Iterator[Table]:
    """Yield the table of states."""
    from taxlens.words.terminal_tables import plain_table

    if run.has("states"):
        frame = run.table("states")
        overall = frame.loc[frame["layer"].isna(), ["suite", "template", "state", "reason"]]
        yield plain_table("state of each capability", overall)


def diagnose_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the diagnosis."""
    if not run.has("states"):
        return []
    return [
        "\\paragraph{State.} Whether a lost capability is suppressed, rotated, rerouted, attenuated or erased is "
        "decided by rules on held-out evidence by layer: a fresh probe, "
        "base's probe read on aligned, Procrustes stitching, injection of base's stream, steering of rank 1, 4 and 16 "
        "with controls, and removal of the probe's subspace "
        "\\citep{belrose2023leace}; an interval must clear a threshold, else the state is undetermined. Compare "
        "\\citet{jain2024mechanistically,lee2024mechanistic,arditi2024refusal}."
    ]


def diagnose_latex(run: RunView, metric: str) -> dict[str, str]:
    """Return the table of states in LaTeX."""
    return {"states": _states(run)} if run.has("states") else {}


def _states(run: RunView) -> str:
    frame = run.table("states")
    overall = frame[frame["layer"].isna()]
    rows = [
        [escaped(r.suite), escaped(r.template), escaped(r.state), escaped(str(r.reason)[:90])]
        for r in overall.itertuples()
    ]
    caption = "State of each capability and the rule that fired; evidence by layer is in evidence.csv."
    return booktabs(["suite", "template", "state", "reason"], rows, caption=caption, label="tab:states", left=4)
