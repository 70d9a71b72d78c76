"""Short trials on this machine, from which the stages say what they will take: the time of a token, of an interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.runs.context import RunContext

FEW = 16
"""Items that a trial reads."""


def seconds_of(work: Callable[[], Any], *, times: int = 2) -> float:
    """Return the seconds that a piece of work takes: the shortest of several times, the first of which warms up.

    Where the machine is busy with other work, its waiting is not counted: seconds of the processor, if these are fewer.
    """
    taken = []
    for _ in range(times):
        begun = time.perf_counter(), time.process_time()
        work()
        taken.append(min(time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return min(taken)


def once(job: RunContext, name: str, work: Callable[[], float]) -> float:
    """Return what a trial measured, measured once a session."""
    if name not in job.measured:
        job.measured[name] = work()
    return job.measured[name]


def scored(
    job: RunContext, *, attributed: bool = False, several_right: bool = False, kind: str | None = None
) -> list[tuple[str, Suite]]:
    """Return the suites with choices, each with the template in which it is localised."""
    found = job.by_template(attributed=attributed, several_right=several_right)
    pairs = [(t, suite) for t, suites in found.items() for suite in suites]
    return [(t, suite) for t, suite in pairs if kind in (None, suite.kind)]


def few(suite: Suite, count: int = FEW) -> Suite:
    """Return some items of a suite, spread over it."""
    return suite.subset(np.unique(np.linspace(0, len(suite) - 1, min(count, len(suite))).astype(int)).tolist())


def tokens_of(job: RunContext, suite: Suite, template: str, *, most: int | str = "all") -> float:
    """Return the tokens that scoring a suite (or `most` of its items) reads, counted on some items."""
    from taxlens.analysis.scoring.budget import read_tokens

    part = few(suite)
    items = len(suite) if isinstance(most, str) else min(most, len(suite))
    return read_tokens(job.pair, part, template=template) * items / len(part)


def seconds_a_token(job: RunContext) -> float:
    """Return the seconds that one model takes to read a token when a suite is scored, mean of both models."""
    return once(job, "token", lambda: _score_time(job))


def _score_time(job: RunContext) -> float:
    from taxlens.activations.models.prompts import one_prompting
    from taxlens.analysis.scoring.budget import read_tokens
    from taxlens.analysis.scoring.choices import score_suite

    pairs = scored(job)
    if not pairs:
        return 0.0
    template, suite = max(pairs, key=lambda pair: len(pair[1]))
    part = few(suite, 4 * FEW)
    prompting = one_prompting(job.pair, part, template)
    models = (job.pair.base, job.pair.aligned)
    taken = [seconds_of(lambda m=model: score_suite(m, part, prompting=prompting)) for model in models]
    return sum(taken) / 2 / read_tokens(job.pair, part, template=template)


def seconds_an_interval(job: RunContext, groups: Sequence[str], *, columns: int = 1) -> float:
    """Return the seconds of one group-bootstrap interval of so many columns over these groups."""
    from taxlens.core.stats.intervals import sum_intervals

    draws, values = job.config.tax.bootstrap, np.random.default_rng(0).normal(size=(len(groups), columns))
    name = f"interval {len(groups)} {len(set(groups))} {columns}"
    return once(job, name, lambda: seconds_of(lambda: sum_intervals(values, groups, draws=draws, seed=0)))


def at_speed(job: RunContext, nominal: float) -> float:
    """Return the minutes on this machine of what takes so many at the stated rate of `scoring.budget`."""
    from taxlens.analysis.scoring.budget import minutes_for

    return nominal * seconds_a_token(job) / (60 * minutes_for(job.pair, 1))


def figure_count(job: RunContext) -> int:
    """Return about how many figures a run will have: by stage, kind, metric and suite."""
    from taxlens.stages import STAGES

    planned = [stage for stage in STAGES if stage.name in job.stages]
    every = job.config.figures.which == "all"
    suites = max(1, len(scored(job, attributed=True)))
    metrics = len(job.config.attribution.metrics) if every else 1
    drawn = [figure for stage in planned for figure in stage.figures if every or not figure.asked]
    return sum(metrics * (suites if every and figure.each else 1) for figure in drawn)
