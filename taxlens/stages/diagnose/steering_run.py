"""The steering vectors that a diagnosis measured: files of their own, and what each does to tax and benefit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taxlens.analysis.state.state_tables import STEERING
from taxlens.stages.frontier import FRONTIER_STAGE

if TYPE_CHECKING:
    from taxlens.analysis.frontier.front import Benefit
    from taxlens.analysis.interventions.steering import Steering
    from taxlens.runs.context import RunContext


def benefit_of(job: RunContext) -> Benefit | None:
    """What alignment was for, by the run's config; None where no suite is of kind benefit and none is named."""
    from taxlens.analysis.frontier.front import Benefit

    section = job.config.of(FRONTIER_STAGE)
    suite = section.benefit or next((s.name for s in job.config.suites if s.kind == "benefit"), "")
    return Benefit.named(list(job.suites.values()), suite, section.against or "") if suite else None


def write_steerings(job: RunContext, steerings: Mapping[str, Steering], templates: Mapping[str, str]) -> None:
    """Write steering.csv and one file a vector, with the benefit under each where the run has a benefit suite."""
    from taxlens.analysis.state.steering_benefit import steered_benefit, steering_rows

    benefit, rows = benefit_of(job), []
    for suite, steering in steerings.items():
        if benefit is not None:
            draws = min(job.config.tax.bootstrap, 1000)
            steering.measured.update(
                steered_benefit(
                    job.pair, steering, benefit, job.suites, template=templates, draws=draws, seed=job.config.seed
                )
            )
        rows += steering_rows(steering)
        steering.save(job.run.folder / "steering" / f"{suite}.safetensors")
    job.run.write(STEERING, STEERING.frame(rows))
