"""Drawing: every figure that a run's tables allow, or a result's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.core.errors import UsageError, explain, one_of
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
    """Draw every figure that the run's tables allow."""
    draw_run(job.run, venue=section.venue, width=section.width)


def draw_alone(job: RunContext, stage: Stage) -> None:
    """Draw the figures that a stage draws when it is asked alone, as far as its tables are there."""
    section = job.config.figures
    for figure in stage.figures:
        if figure.alone and all(job.run.has(table) for table in figure.tables):
            draw_run(job.run, venue=section.venue, width=section.width, only=figure.name)


def draw_run(run: RunView, *, venue: str = "neurips", width: str = "page", only: str | None = None) -> list[Path]:
    """Draw and save every figure that the run's tables allow, and return the written paths.

    Args:
        run: the run.
        venue: whose page widths to use.
        width: "column" or "page".
        only: draw this kind alone.

    Raises:
        UsageError: unknown venue, width or figure, or `only` names a figure whose tables the run lacks.
    """
    inches = width_of(venue, width)
    kinds = [FIGURES[one_of(only, list(FIGURES), what="figure")]] if only else list(FIGURES.values())
    written: list[Path] = []
    for kind in kinds:
        missing = [name for name in kind.tables if not run.has(name)]
        if missing and only:
            rows = [("figure", only), ("missing tables", ", ".join(missing))]
            raise UsageError(explain("the run lacks what the figure shows.", rows, "run the stage that writes them"))
        if missing:
            continue
        tables = {name: run.table(name) for name in (*kind.tables, *kind.optional) if run.has(name)}
        if "truth" in kind.optional:
            tables["truth"] = planted_components(run.config)
        for name, draw in kind.jobs(tables, inches):
            written += save_figure(draw(), run.folder / "figures", name)
    return written


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
