"""The stage that says in which state each capability is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.analysis.interventions.effect_tables import ATTRIBUTION
from taxlens.analysis.state.state_tables import EVIDENCE, STATES
from taxlens.stages.diagnose.diagnose_section import DiagnoseSection
from taxlens.stages.section import arguments

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def stage_diagnose(job: RunContext, section: DiagnoseSection) -> None:
    """Say in which state each capability is: states.csv, evidence.csv, and the steering vectors that were measured."""
    from taxlens.analysis.state.diagnoses import diagnose_suites
    from taxlens.stages.diagnose.steering_run import write_steerings

    config = job.config
    templates = {one.name: job.template_of(one) for one in config.suites}
    suites = [suite for several in job.by_template().values() for suite in several if suite.kind == "capability"]
    found = diagnose_suites(
        job.pair,
        suites,
        template=templates,
        **arguments(section, diagnose_suites),
        effects=_effects_by_layer(job),
        draws=min(config.tax.bootstrap, 1000),
        seed=config.seed,
        progress=job.progress,
    )
    job.run.write(STATES, found.to_frame())
    job.run.write(EVIDENCE, found.evidence_frame())
    write_steerings(job, found.steerings(), templates)


def _effects_by_layer(job: RunContext) -> dict[str, dict[int, float]]:
    """Path effect on the probability by suite and layer, where the run has attributed it."""
    if not job.run.has("attribution"):
        return {}
    frame = job.run.read(ATTRIBUTION)
    frame = frame[(frame.level == "component") & (frame.method == "path") & (frame.metric == "probability")]
    summed = frame.groupby(["suite", "layer"])["effect"].sum()
    return {
        str(suite): {int(layer): float(value) for (_, layer), value in mine.items()}
        for suite, mine in summed.groupby(level="suite")
    }
