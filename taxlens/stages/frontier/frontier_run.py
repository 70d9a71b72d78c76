"""The frontier of a run, and the checkpoints that its plans describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.analysis.frontier.frontier_tables import (
    FRONTIER,
    FRONTIER_COMPARISON,
    FRONTIER_LEAKS,
    FRONTIER_MATCHED,
    FRONTIER_STABILITY,
)
from taxlens.analysis.weights.export_tables import PLAN_NAMES
from taxlens.core.errors import ConfigError, UsageError, explain
from taxlens.stages.frontier.frontier_section import FrontierSection
from taxlens.stages.stage import StageCost

if TYPE_CHECKING:
    from taxlens.analysis.frontier.front import Frontier
    from taxlens.config.schema import Config
    from taxlens.runs.context import RunContext

BYTES_A_UNIT, PLAN_BYTES = 17.0, 8000
"""Bytes on disk of a unit's effects on an item (two metrics, compressed), and of a plan."""


def frontier_arguments(job: RunContext, section: FrontierSection) -> dict[str, Any]:
    """Return what `analysis.frontier.frontier` is asked for by a run's config.

    Raises:
        ConfigError: if the config names no benefit suite.
    """
    config = job.config
    suites = [suite for several in job.by_template().values() for suite in several]
    templates = {one.name: job.template_of(one) for one in config.suites}
    return dict(section) | {
        "suites": sorted(suites, key=lambda suite: list(job.suites).index(suite.name)),
        "benefit": benefit_suite(config, section),
        "against": section.against or "",
        "candidates": section.suites,
        "template": templates,
        "holdout": config.split.holdout,
        "disjoint": config.split.disjoint,
        "tolerance": config.attribution.tolerance,
        "max_gradients": section.max_gradients or config.attribution.max_gradients,
        "bootstrap": config.tax.bootstrap,
        "seed": config.seed,
    }


def benefit_suite(config: Config, section: FrontierSection) -> str:
    """Return the name of the suite that alignment was for.

    Raises:
        ConfigError: if no suite is of kind benefit and none is named.
    """
    named = [suite.name for suite in config.suites if suite.kind == "benefit"]
    if not (section.benefit or named):
        rows = [("suites", ", ".join(suite.name for suite in config.suites)), ("missing", "a suite of kind: benefit")]
        raise ConfigError(explain("a frontier needs what alignment was for.", rows, "add a benefit suite"))
    return section.benefit or named[0]


def earlier_names(config: Config) -> list[str]:
    """Earlier checkpoints of the same training: all but the last of `pair.aligned` or `pair.adapter`, where it is a list."""
    named = config.pair.aligned if config.pair.aligned is not None else config.pair.adapter
    return list(named[:-1]) if isinstance(named, tuple) and config.pair.several == "chain" else []


def earlier_checkpoints(job: RunContext, section: FrontierSection) -> dict[str, Any]:
    """The earlier checkpoints, loaded as the pair is, by the name of their folder."""
    asked = "checkpoint" in section.orders
    names = earlier_names(job.config) if asked else []
    return {Path(name).name: step for name, step in zip(names, job.steps if names else (), strict=True)}


def stage_frontier(job: RunContext, section: FrontierSection) -> None:
    """Measure the plans of a run: frontier.csv, its comparison and leaks, and plans.json."""
    from taxlens.analysis.frontier.measure import frontier
    from taxlens.analysis.frontier.plan_files import read_plan, write_plans
    from taxlens.analysis.weights.external_names import export_units

    arguments = frontier_arguments(job, section)
    front = frontier(
        job.pair, arguments.pop("suites"), folder=job.run.folder / "frontier", progress=job.progress,
        checkpoints=earlier_checkpoints(job, section), **arguments,
    )  # fmt: skip
    job.run.write(FRONTIER, front.to_frame())
    job.run.write(FRONTIER_COMPARISON, front.comparison_frame())
    job.run.write(FRONTIER_MATCHED, front.matched_frame())
    job.run.write(FRONTIER_LEAKS, front.leaks)
    job.run.write(FRONTIER_STABILITY, front.stability)
    job.run.note(
        frontier={
            "recommended": front.recommended,
            "notes": list(front.notes),
            "prediction": _prediction(front),
        }
    )
    plans = job.run.folder / "plans.json"
    write_plans(front, plans, base=job.pair.base.sha256, aligned=job.pair.aligned.sha256)
    if front.recommended:
        record = read_plan(plans, front.recommended)
        job.run.write(PLAN_NAMES, export_units(job.pair, record.undo, level=record.unit))


def frontier_cost_of(job: RunContext, section: FrontierSection) -> StageCost:
    """Return what the frontier will take: the plans that fit its minutes, and the attribution of the training half."""
    from taxlens.analysis.frontier.measure import frontier_cost
    from taxlens.stages.needs import gradient_bytes, training_bytes, unit_count
    from taxlens.stages.trials import at_speed

    arguments = frontier_arguments(job, section)
    found = frontier_cost(job.pair, arguments.pop("suites"), **arguments)
    units, items = unit_count(job, section.unit), sum(len(suite) for suite in job.suites.values())
    trained = {"learned_mask", "relearn"} & set(section.orders)
    return StageCost(
        at_speed(job, found.total),
        disk=items * units * BYTES_A_UNIT + found.plans * PLAN_BYTES,
        memory=training_bytes(job) if trained else gradient_bytes(job) + 2 * 8.0 * items * units,
        words=repr(found),
    )


def _prediction(front: Frontier) -> dict[str, float | int | str]:
    """How measured and predicted returns go together, or why no line can be said."""
    try:
        fit = front.prediction()
    except UsageError as error:
        return {"reason": " ".join(str(error).split())}
    return {"slope": fit.slope, "intercept": fit.intercept, "r_squared": fit.r_squared, "n": fit.n}
