"""A stage as one declared object: everything that the rest of the package asks about a stage stands here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taxlens.core.lazy import Lazy
from taxlens.core.table import Table
from taxlens.stages.section import Section

OTHER = "Other"
"""Heading of figures without one of their own."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A kind of figure: what it shows and where the report puts it.

    Args:
        name: the kind: `taxlens figures --only NAME`, and `figure` of the result that draws itself by it.
        tables: names of the tables that it needs; the first is the result's own.
        jobs: (tables by name, width in inches) -> (file name, function that draws) pairs.
        optional: further tables that it shows where a run has them.
        group: heading in the report.
        files: how its file names begin, where not with its own name.
        first: patterns of file names that the report shows first, one figure a pattern; SUITE stands for a suite.
        rank: figures of lower rank come first among those.
        alone: whether the stage draws it when it is asked alone.
        each: whether there is a drawing for every suite or template: then only the leading ones are drawn by default.
        together: whether one drawing shows all suites: then `each` is about templates alone.
        asked: whether it is drawn only where it is named, or where every figure is drawn.
    """

    name: str
    tables: tuple[str, ...]
    jobs: Lazy
    optional: tuple[str, ...] = ()
    group: str = OTHER
    files: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    rank: int = 1
    alone: bool = False
    each: bool = False
    together: bool = False
    asked: bool = False

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How its file names begin."""
        return self.files or (self.name,)


@dataclass(frozen=True, slots=True)
class Words:
    """What a stage says of a run, each a function of the run that returns an empty list where it has nothing to say.

    Args:
        clauses: (run, suite) -> sentences of the suite's paragraph that opens the report, without their full stops.
        closing: (run) -> sentences after those of the suites.
        limits: (run) -> sentences on what the run cannot show.
        terminal: (run) -> what the terminal prints: texts and rich tables.
        methods: (run) -> sentences of the methods paragraph, in LaTeX.
        latex: (run, metric) -> LaTeX tables by file name.
    """

    clauses: Lazy | None = None
    closing: Lazy | None = None
    limits: Lazy | None = None
    terminal: Lazy | None = None
    methods: Lazy | None = None
    latex: Lazy | None = None


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage will take: minutes of work, bytes written, bytes of memory; words instead of these numbers where a stage has better ones."""

    minutes: float
    disk: float = 0.0
    memory: float = 0.0
    words: str = ""

    def __str__(self) -> str:
        time = f"{60 * self.minutes:.0f} s" if self.minutes < 1 else f"{self.minutes:.1f} minutes"
        sizes = ((self.disk, "on disk"), (self.memory, "of memory above the models"))
        return ", ".join([f"about {time}", *(f"{_bytes(size)} {where}" for size, where in sizes if size)])


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Args:
        name: the command, and the key in run.json.
        help: one line for the command, at most 45 characters.
        compute: (context, section) -> None; writes the stage's tables by `context.run.write`.
        section: its options and their defaults, the only place where these are written.
        key: its key in the config; blank: it has no options.
        always: whether `taxlens run` does it without being named; else only where the config has its key.
        needs: stages that must have ended well before it.
        uses: stages whose tables it reads where they are there.
        reads: keys of the config that its results depend on beside pair, suites, templates, seed and its own section,
            such as "tax.bootstrap"; None: all of them. What they were is kept in run.json, and a run is not gone on with
            under others.
        tables: what it writes.
        summary: names of tables that `--json` prints.
        figures: kinds of figures of its tables.
        words: what it says of a run.
        check: (context, section) -> None; refuses names and options that cannot be met. Run before anything is loaded.
        cost: (context, section) -> StageCost, for `--dry-run`; the models are loaded by then.
        shared: whether several workers can share its work (`executor`, and `--shard K/N` with `taxlens merge`).
        command: whether the command line makes a command of it (else it has one of its own).
        notebook: (pair, suites, **options) -> Result: the method of its name that `Pair` then has.
    """

    name: str
    help: str
    compute: Lazy
    section: type[Section] = Section
    key: str = ""
    always: bool = True
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    tables: tuple[Table, ...] = ()
    summary: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    words: Words = field(default_factory=Words)
    check: Lazy | None = None
    cost: Lazy | None = None
    shared: bool = False
    command: bool = True
    notebook: Lazy | None = None


def tables_of(stages: Iterable[Stage]) -> dict[str, Table]:
    """Return every table of some stages, by name.

    Raises:
        ValueError: two stages write a table of one name.
    """
    found: dict[str, Table] = {}
    for stage in stages:
        for table in stage.tables:
            if table.name in found:
                raise ValueError(f"table {table.name!r} is declared twice; the second time by {stage.name!r}")
            found[table.name] = table
    return found


def figures_of(stages: Iterable[Stage]) -> dict[str, Figure]:
    """Return every kind of figure of some stages, by name.

    Raises:
        ValueError: two stages declare a figure of one name.
    """
    found: dict[str, Figure] = {}
    for stage in stages:
        for figure in stage.figures:
            if figure.name in found:
                raise ValueError(f"figure {figure.name!r} is declared twice; the second time by {stage.name!r}")
            found[figure.name] = figure
    return found
