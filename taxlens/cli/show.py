"""What a person reads in the terminal after a run: what every stage has to say, and where the files are."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from taxlens.runs.folder import Run
from taxlens.stages import STAGES
from taxlens.stages.tax.tax_terminal import ledger_table


def wide_console() -> Console:
    """Return a console on standard output that reads no markup in names and does not cut tables where no terminal sets the width."""
    plain = {"highlight": False, "markup": False, "emoji": False}
    console = Console(**plain)
    return console if console.is_terminal else Console(**plain, width=160)


def show_run(run: Run, *, console: Console | None = None) -> None:
    """Print the run's headline tables and paths."""
    console = console or wide_console()
    for stage in (stage for stage in STAGES if stage.words.terminal):
        for shown in stage.words.terminal(run):
            if isinstance(shown, str):
                console.print(shown, soft_wrap=True, markup=False)
            else:
                console.print(shown)
    report = run.folder / "report.html"
    console.print(f"run     {run.folder}", soft_wrap=True, markup=False)
    if report.is_file():
        console.print(f"report  {report.resolve()}", soft_wrap=True, markup=False)


def show_ledger(frame: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print the rows of a tax table, as logged elsewhere."""
    (console or wide_console()).print(ledger_table(frame, "percentile"))
