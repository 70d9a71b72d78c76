"""The stage that probes a run's activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.probe.probe_tables import PROBE_DROP, PROBES
from taxlens.stages.probe.store_probes import probe_store

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def stage_probe(job: RunContext, section: ProbeSection) -> None:
    """Probe every label at every layer of both models: probes.csv, probe_drop.csv, and the fitted probes as files."""
    with job.open_store() as store:
        found = probe_store(store, **dict(section), seed=job.config.seed, progress=job.progress)
    job.run.write(PROBES, found.probes)
    job.run.write(PROBE_DROP, found.drops)
    found.save(job.run.folder / "probes")
