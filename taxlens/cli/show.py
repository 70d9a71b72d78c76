"""What a person reads in the terminal after a run: what every stage has to say, and where the files are."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from taxlens.analysis.scoring.metrics import shown_metric
from taxlens.report.answer import headline
from taxlens.runs.folder import Run
from taxlens.stages import STAGES
from taxlens.stages.attribute.truth_figure import planted_components
from taxlens.stages.tax.tax_terminal import ledger_table
from taxlens.words.suite_rows import by_loss, is_told, told_row


def wide_console() -> Console:
    """Return a console on standard output that reads no markup in names and does not cut tables where no terminal sets the width."""
    plain = {"highlight": False, "markup": False, "emoji": False}
    console = Console(**plain)
    return console if console.is_terminal else Console(**plain, width=160)


def show_run(run: Run, *, console: Console | None = None, verbose: bool = True, stage: str = "") -> None:
    """Print the answer of a run, its tables where they are asked for, and its paths.

    Args:
        run: a run.
        console: where to print.
        verbose: print every table; a stage that was run alone prints its own.
        stage: the stage that was run alone.
    """
    console = console or wide_console()
    for paragraph in answer(run):
        console.print(paragraph, soft_wrap=True, markup=False)
    for one in STAGES:
        terminal = one.words.terminal
        if terminal is None or not (one.name == stage if stage else verbose):
            continue
        for shown in terminal(run):
            if isinstance(shown, str):
                console.print(shown, soft_wrap=True, markup=False)
            else:
                console.print(shown)
    report = run.folder / "report.html"
    console.print(f"run     {run.folder}", soft_wrap=True, markup=False)
    if report.is_file():
        console.print(f"report  {report.resolve()}", soft_wrap=True, markup=False)


def answer(run: Run, *, most: int = 3) -> list[str]:
    """Return the answer in a few lines: the suites that lost most, the others in one line, the benefit, what was planted.

    Args:
        run: a run.
        most: paragraphs of suites; the others are named in one line.
    """
    if not run.has("tax"):
        return []
    suites, paragraphs = by_loss(run), headline(run)
    told = [suite for suite in suites if is_told(told_row(run, suite)) and counts(told_row(run, suite))][:most]
    lines = [paragraphs[suites.index(suite)] for suite in told]
    others = [suite for suite in suites if suite not in told]
    if others:
        lines.append(f"Less lost, or no loss shown: {', '.join(others)} (tables/tax.csv).")
    return [*lines, *paragraphs[len(suites) :], *_planted(run, told)]


def counts(row: pd.Series) -> bool:
    """Whether a change is larger than what counts as none in its metric."""
    margin = shown_metric(str(row["metric"])).equivalence(0.02)
    return margin is None or abs(float(row["tax"])) > margin


def _planted(run: Run, told: list[str]) -> list[str]:
    """Return what was planted in an embedded pair and whether it was found, where the run attributed it."""
    truth = planted_components(run.config)
    if truth.empty or not run.has("attribution"):
        return []
    frame = run.table("attribution")
    frame = frame[(frame["method"] == "path") & (frame["level"] == "component") & (frame["metric"] == "probability")]
    said = []
    for suite in (suite for suite in told if suite in set(truth["suite"])):
        planted = list(truth.loc[truth["suite"] == suite, "component"])
        first = frame[frame["suite"] == suite].nlargest(len(planted), "effect")["component"]
        found = [name for name in planted if name in set(first)]
        verdict = "all found" if len(found) == len(planted) else f"found {', '.join(found) or 'none'}"
        said.append(f"Planted in this demo: {suite} was damaged in {' and '.join(planted)}; {verdict}.")
    return said


def show_ledger(frame: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print the rows of a tax table, as logged elsewhere."""
    (console or wide_console()).print(ledger_table(frame, "percentile"))
