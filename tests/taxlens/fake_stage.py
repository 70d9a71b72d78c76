"""A stage as a newcomer would write it: one object, and what it names. `register` is its one line in STAGES."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from pydantic import Field

from taxlens.core.lazy import Lazy
from taxlens.core.result import Result
from taxlens.core.table import Table, count, text
from taxlens.stages.section import Section
from taxlens.stages.stage import Figure, Stage, StageCost, Words

HERE = "fake_stage"
LENGTHS = Table(
    "prompt_lengths",
    "an item",
    {"suite": text("name of the suite"), "item": text("id of the item"), "letters": count("letters of its prompt")},
    key=("suite", "item"),
)


class LengthSection(Section):
    """How long prompts are."""

    most: int = Field(default=5, ge=1, description="most items a suite")
    suites: tuple[str, ...] = Field(default=(), description="suites that are counted; []: all")


@dataclass(frozen=True, slots=True, repr=False)
class Lengths(Result):
    """Letters of prompts."""

    figure: ClassVar[str] = "prompt_lengths"
    frame: pd.DataFrame

    def to_frame(self):
        """One row an item."""
        return self.frame


def counted(suites, most):
    rows = [(s.name, i.id, len(i.prompt or "")) for s in suites for i in s.items[:most]]
    return LENGTHS.frame(rows)


def compute(job, section):
    chosen = [s for s in job.suites.values() if s.name in section.suites or not section.suites]
    job.run.write(LENGTHS, counted(chosen, section.most))


def check(context, section):
    context.each_of("lengths.suites", section.suites, context.suite_names(), what="suite")


def cost(job, section):
    return StageCost(0.5, disk=2_000_000)


def notebook(pair, suites, *, most=5):
    return Lengths(counted(list(suites) if isinstance(suites, Sequence) else [suites], most))


def drawings(tables, width):
    from taxlens.figures.style import Drawn, new_figure

    frame = tables["prompt_lengths"]
    yield "prompt_lengths", lambda: Drawn(new_figure(width, 1), frame, f"Lengths of {len(frame)} prompts.")


def clauses(run, suite):
    return ["its prompts were counted"] if run.has("prompt_lengths") else []


def limits(run):
    return ["Letters are no tokens."] if run.has("prompt_lengths") else []


def terminal(run):
    if run.has("prompt_lengths"):
        yield f"{len(run.table('prompt_lengths'))} prompts counted"


def methods(run):
    return ["\\paragraph{Lengths.} Prompts were counted."] if run.has("prompt_lengths") else []


def latex(run, metric):
    return {"lengths": "A table of lengths.\n"} if run.has("prompt_lengths") else {}


STAGE = Stage(
    "lengths",
    "Count the letters of prompts.",
    compute=Lazy(f"{HERE}:compute"),
    section=LengthSection,
    key="lengths",
    always=False,
    tables=(LENGTHS,),
    summary=("prompt_lengths",),
    figures=(
        Figure(
            "prompt_lengths", ("prompt_lengths",), Lazy(f"{HERE}:drawings"), group="Lengths", first=("prompt_lengths",)
        ),
    ),
    words=Words(**{name: Lazy(f"{HERE}:{name}") for name in ("clauses", "limits", "terminal", "methods", "latex")}),
    check=Lazy(f"{HERE}:check"),
    cost=Lazy(f"{HERE}:cost"),
    notebook=Lazy(f"{HERE}:notebook"),
)


def register():
    """Add the stage, as the one line in `taxlens/stages/__init__.py` would."""
    import taxlens.stages as stages

    stages.STAGES = (*stages.STAGES[:1], STAGE, *stages.STAGES[1:])
    stages.TABLES, stages.FIGURES = stages.tables_of(stages.STAGES), stages.figures_of(stages.STAGES)
