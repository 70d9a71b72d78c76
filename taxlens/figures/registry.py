"""Which figures there are, what tables each needs, and drawing all that a run allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.figures.attribution import draw_attribution
from taxlens.figures.curves import draw_probe_curves, draw_similarity_curves
from taxlens.figures.save import save_figure
from taxlens.figures.style import Drawn, width_of
from taxlens.view import RunView

Tables = Mapping[str, pd.DataFrame]
Jobs = Iterator[tuple[str, Callable[[], Drawn]]]


@dataclass(frozen=True, slots=True)
class FigureKind:
    """A kind of figure: its name, the tables it needs, and the drawings that a run's tables give (name, draw)."""

    name: str
    tables: tuple[str, ...]
    jobs: Callable[[Tables, float], Jobs]


def _tax(tables: Tables, width: float) -> Jobs:
    from taxlens.figures.tax import draw_tax

    frame = tables["tax"]
    for metric in dict.fromkeys(frame["metric"]):
        yield f"tax_{metric}", lambda m=metric: draw_tax(frame, width=width, metric=m)


def _probe(tables: Tables, width: float) -> Jobs:
    frame = tables["probes"]
    keys = frame[["suite", "label", "template"]].drop_duplicates()
    for key in keys.itertuples(index=False):
        name = f"probe_{key.suite}_{key.label}_{key.template}"
        yield (
            name,
            lambda k=key: draw_probe_curves(frame, suite=k.suite, label=k.label, template=k.template, width=width),
        )


def _similarity(tables: Tables, width: float) -> Jobs:
    yield "similarity", lambda: draw_similarity_curves(tables["similarity"], width=width)


def _attribution(tables: Tables, width: float) -> Jobs:
    frame, closure = tables["attribution"], tables.get("closure")
    path = frame[frame["method"] == "path"]
    for key in path[["suite", "metric", "level"]].drop_duplicates().itertuples(index=False):
        name = f"attribution_{key.suite}_{key.metric}" + ("" if key.level == "component" else f"_{key.level}")
        yield (
            name,
            lambda k=key: draw_attribution(
                frame, closure=closure, suite=k.suite, metric=k.metric, level=k.level, width=width
            ),
        )


KINDS: dict[str, FigureKind] = {
    kind.name: kind
    for kind in (
        FigureKind("tax", ("tax",), _tax),
        FigureKind("probe", ("probes",), _probe),
        FigureKind("similarity", ("similarity",), _similarity),
        FigureKind("attribution", ("attribution", "closure"), _attribution),
    )
}


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
    kinds = [KINDS[one_of(only, list(KINDS), what="figure")]] if only else list(KINDS.values())
    written: list[Path] = []
    for kind in kinds:
        missing = [name for name in kind.tables if not run.has(name)]
        if missing and only:
            rows = [("figure", only), ("missing tables", ", ".join(missing))]
            raise UsageError(explain("the run lacks what the figure shows.", rows, "run the stage that writes them"))
        if missing:
            continue
        tables = {name: run.table(name) for name in kind.tables}
        for name, draw in kind.jobs(tables, inches):
            written += save_figure(draw(), run.folder / "figures", name)
    return written


def draw_result(kind: str, frame: pd.DataFrame, *, width: float = 5.5, name: str | None = None) -> Drawn:
    """Draw a result's own table: its first figure, or the one called `name`.

    Args:
        kind: which kind of figure.
        frame: the result's table [rows, columns].
        width: inches.
        name: which of the drawings that the table gives (default: the first).

    Raises:
        UsageError: if the kind or the name is not known, or the table is empty.
    """
    chosen = KINDS[one_of(kind, list(KINDS), what="figure")]
    jobs = dict(chosen.jobs({chosen.tables[0]: frame}, width))
    if not jobs:
        raise UsageError(explain("nothing to draw: the table is empty.", [("figure", kind)]))
    return jobs[one_of(name or next(iter(jobs)), list(jobs), what="drawing")]()
