"""What a person reads in the terminal after a run: the tax, how it closed, and where the files are."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

from taxlens.cli.show_tax import amount, ledger_table, tax_sentences, tax_tables
from taxlens.runs.folder import Run

_NATS = ("nll", "margin", "kl")


def wide_console() -> Console:
    """Return a console on standard output that does not cut tables where no terminal sets the width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def show_run(run: Run, *, console: Console | None = None) -> None:
    """Print the run's headline tables and paths."""
    console = console or wide_console()
    if run.has("tax"):
        for sentence in tax_sentences(run):
            console.print(sentence, soft_wrap=True, markup=False)
        for table in tax_tables(run):
            console.print(table)
    if run.has("closure"):
        console.print(_closure_table(run.table("closure")))
    if run.has("states"):
        console.print(_plain("state of each capability", _overall(run.table("states"))))
    if run.has("frontier"):
        console.print(
            _plain("plans (tax returned and benefit, measured on held-out items)", _plans(run.table("frontier")))
        )
    report = run.folder / "report.html"
    console.print(f"run     {run.folder}", soft_wrap=True)
    if report.is_file():
        console.print(f"report  {report.resolve()}", soft_wrap=True)


def show_ledger(frame: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print the rows of a tax table, as logged elsewhere."""
    (console or wide_console()).print(ledger_table(frame, "percentile"))


def _closure_table(frame: pd.DataFrame) -> Table:
    table = Table(
        title="attribution by the weight path (effects sum to the tax; residual shown)", title_justify="left", box=None
    )
    for name in ("suite", "template", "metric"):
        table.add_column(name)
    for name in ("tax", "attributed", "residual", "gradients", "forwards"):
        table.add_column(name, justify="right")
    for row in frame[frame["method"] == "path"].itertuples():
        residual = f"{row.residual:.2e}"
        counts = [str(int(v)) if pd.notna(v) else "-" for v in (row.gradients, row.forwards)]
        values = (amount(row.tax, row.metric), amount(row.attributed, row.metric))
        table.add_row(row.suite, row.template, row.metric, *values, residual, *counts)
    return table


def _overall(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["layer"].isna()]
    return rows[["suite", "template", "state", "reason"]]


def _plans(frame: pd.DataFrame) -> pd.DataFrame:
    keep = ["plan", "share_undone", "energy_undone", "suite", "metric", "tax_predicted", "tax", "returned", "benefit"]
    return frame[[name for name in keep if name in frame]].head(40)


def _plain(title: str, frame: pd.DataFrame) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for name in frame.columns:
        table.add_column(str(name))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    return table
