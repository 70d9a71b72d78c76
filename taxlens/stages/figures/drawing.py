"""Drawing: every figure that a run's tables allow, or a result's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.figures.drawings import main_metric
from taxlens.figures.save import save_figure
from taxlens.figures.style import Drawn, width_of
from taxlens.stages import FIGURES
from taxlens.stages.attribute.truth_figure import planted_components
from taxlens.stages.figures.figures_section import FigureSection
from taxlens.stages.stage import Stage
from taxlens.words.run_view import RunView

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def stage_figures(job: RunContext, section: FigureSection) -> None:
    """Draw the figures that the run's tables allow: the leading ones, or all of them."""
    draw_run(job.run, venue=section.venue, width=section.width, which=section.which, progress=job.progress)


def draw_alone(job: RunContext, stage: Stage) -> None:
    """Draw the figures that a stage draws when it is asked alone, as far as its tables are there."""
    section = job.config.figures
    for figure in stage.figures:
        if figure.alone and all(job.run.has(table) for table in figure.tables):
            draw_run(job.run, venue=section.venue, width=section.width, only=figure.name)


def draw_run(
    run: RunView,
    *,
    venue: str = "neurips",
    width: str = "page",
    only: str | None = None,
    which: str = "all",
    progress: Progress = SILENT,
) -> list[Path]:
    """Draw and save the figures that the run's tables allow, and return the written paths.

    Args:
        run: the run.
        venue: whose page widths to use.
        width: "column" or "page".
        only: draw this kind alone, every drawing of it.
        which: "all", or "leading": the main metric only, and of kinds with a drawing for each suite or template those
            of the suites that lost most, in the first template.
        progress: shows figure by figure.

    Raises:
        UsageError: unknown venue, width or figure, or `only` names a figure whose tables the run lacks.
    """
    inches = width_of(venue, width)
    kinds = [FIGURES[one_of(only, list(FIGURES), what="figure")]] if only else list(FIGURES.values())
    jobs: list[tuple[str, Callable[[], Drawn]]] = []
    for kind in kinds:
        missing = [name for name in kind.tables if not run.has(name)]
        if missing and only:
            rows = [("figure", only), ("missing tables", ", ".join(missing))]
            raise UsageError(explain("the run lacks what the figure shows.", rows, "run the stage that writes them"))
        if missing or (kind.asked and which == "leading" and not only):
            continue
        tables = {name: run.table(name) for name in (*kind.tables, *kind.optional) if run.has(name)}
        if which == "leading" and not only:
            tables = leading_rows(run, tables, each=kind.each, together=kind.together)
        if "truth" in kind.optional:
            tables["truth"] = planted_components(run.config)
        jobs += kind.jobs(tables, inches)
    written: list[Path] = []
    with progress.task("figures", total=len(jobs), unit="figures") as task:
        for name, draw in jobs:
            written += save_figure(draw(), run.folder / "figures", name)
            task.advance(note=name)
    return written


def leading_suites(run: RunView) -> list[str]:
    """Return the capability suites that lost most in the main metric: the largest tax, and others of at least a fifth of it.

    A suite counts if its interval leaves 0 out; where none does, the one with the largest tax stands alone.
    """
    if not run.has("tax"):
        return []
    frame = run.table("tax")
    frame = frame[(frame["metric"] == main_metric(frame)) & (frame["kind"] == "capability")]
    largest = frame.loc[frame.groupby("suite", sort=False)["tax"].idxmax().dropna()].sort_values("tax", ascending=False)
    if largest.empty:
        return []
    sure = largest[(largest["low"] > 0) & (largest["tax"] >= 0.2 * largest["tax"].iloc[0])]
    return list((sure if len(sure) else largest.head(1))["suite"])


def leading_rows(
    run: RunView, tables: dict[str, pd.DataFrame], *, each: bool, together: bool = False
) -> dict[str, pd.DataFrame]:
    """Return the rows of the main metric and, for kinds with many drawings, of the leading suites and the first template.

    With `together` every suite stays. Rows without a suite stay. A table that would be left empty stays whole.
    """
    suites = leading_suites(run) if each and not together else []
    found = {}
    for name, table in tables.items():
        rows = table
        if "metric" in rows and "probability" in set(rows["metric"]):
            rows = rows[rows["metric"] == "probability"]
        if each and suites and "suite" in rows:
            rows = _or_whole(rows[rows["suite"].isin(suites) | rows["suite"].isna()], rows)
        if each and "template" in rows and rows["template"].notna().any():
            first = rows["template"].dropna().iloc[0]
            rows = rows[(rows["template"] == first) | rows["template"].isna()]
        found[name] = rows.reset_index(drop=True)
    return found


def _or_whole(some: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    return some if len(some) else whole


def draw_result(
    kind: str,
    frame: pd.DataFrame,
    *,
    width: float = 5.5,
    name: str | None = None,
    companions: Mapping[str, pd.DataFrame] | None = None,
) -> Drawn:
    """Draw a result's own table: its first figure, or the one called `name`.

    Args:
        kind: which kind of figure.
        frame: the result's table [rows, columns].
        width: inches.
        name: which of the drawings that the table gives (default: the first).
        companions: further tables that the figure shows, by name.

    Raises:
        UsageError: if the kind or the name is not known, or the table is empty.
    """
    chosen = FIGURES[one_of(kind, list(FIGURES), what="figure")]
    jobs = dict(chosen.jobs({chosen.tables[0]: frame, **(companions or {})}, width))
    if not jobs:
        raise UsageError(explain("nothing to draw: the table is empty.", [("figure", kind)]))
    return jobs[one_of(name or next(iter(jobs)), list(jobs), what="drawing")]()
