"""The stage that captures activations, and what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.stages.capture.capture_section import CaptureSection
from taxlens.stages.stage import StageCost

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def stage_capture(job: RunContext, section: CaptureSection) -> None:
    """Capture both models' activations to the store, after the self-check."""
    from taxlens.activations.capture.capture import capture

    store = capture(
        job.pair,
        list(job.suites.values()),
        to=job.store_path,
        **_options(job, section),
        part=job.part,
        resume=job.resume,
        progress=job.progress,
    )
    job.run.note(self_check=store.manifest["self_check"])
    store.close()


def _options(job: RunContext, section: CaptureSection) -> dict[str, Any]:
    return dict(section) | {"templates": section.templates or job.config.templates, "seed": job.config.seed}


def capture_cost(job: RunContext, section: CaptureSection) -> StageCost:
    """Return what the capture will take, by a trial of the models on this machine."""
    from taxlens.activations.capture.estimate import estimate

    target = job.target / "activations.h5"
    found = estimate(job.pair, list(job.suites.values()), to=Path(target), **_options(job, section), part=job.part)
    return StageCost(found.minutes, disk=found.bytes, memory=found.memory_bytes, words=str(found))
