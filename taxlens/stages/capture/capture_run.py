"""The stage that captures activations, and what it will cost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.core.shared_work import active_part, shared
from taxlens.stages.capture.capture_section import CaptureSection
from taxlens.stages.needs import LIBRARIES
from taxlens.stages.stage import StageCost

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.runs.context import RunContext

SELF_CHECK = 5.0
"""Seconds of the self-check, most of them the import of the library that it compares with."""


def stage_capture(job: RunContext, section: CaptureSection) -> None:
    """Capture both models' activations to the store, after the self-check."""
    from taxlens.activations.capture.capture import capture

    if active_part() is not None and job.part is None and not job.store_path.exists():
        _capture_in_parts(job, section)
        return
    if not job.run.writes:
        return
    store = capture(
        job.pair,
        _suites(job),
        to=job.store_path,
        **_options(job, section),
        part=job.part,
        resume=job.resume,
        progress=job.progress,
    )
    job.run.note(self_check=store.manifest["self_check"])
    store.close()


def _capture_in_parts(job: RunContext, section: CaptureSection) -> None:
    """Capture one part in each worker, cut where shards end, and put them together: the bytes of one capture."""
    from taxlens.activations.capture.capture import capture
    from taxlens.activations.capture.merge import merge
    from taxlens.activations.capture.request import resolve

    part, suites, options = active_part(), _suites(job), _options(job, section)
    assert part is not None
    count = min(part.count, len(resolve(job.pair, suites, **options).shards()))
    folder = part.folder / f"capture-{part.request[:12]}-{count}"

    def one(number: int) -> str:
        store = folder / f"part-{number}.h5"
        asked = options | ({"part": (number, count)} if count > 1 else {})
        capture(job.pair, suites, to=store, **asked, resume=True, progress=job.progress).close()
        return str(store)

    parts = list(shared("capture", range(1, count + 1), one))
    if not job.run.writes:
        return
    if count == 1:
        shutil.copytree(folder / "part-1.shards", job.store_path.with_suffix(".shards"))
        shutil.copyfile(parts[0], job.store_path)
        store = capture(job.pair, suites, to=job.store_path, **options, resume=True, progress=job.progress)
    else:
        store = merge(parts, to=job.store_path, whole=True)
    job.run.note(self_check=store.manifest["self_check"])
    store.close()


def _suites(job: RunContext) -> list[Suite]:
    """The config's suites, and those of both models' own answers where it asks for them."""
    return [*job.suites.values(), *(suite for suites in job.answer_suites().values() for suite in suites)]


def _options(job: RunContext, section: CaptureSection) -> dict[str, Any]:
    return dict(section) | {"templates": section.templates or job.config.templates, "seed": job.config.seed}


def capture_cost(job: RunContext, section: CaptureSection) -> StageCost:
    """Return what the capture will take, by a trial of the models on this machine."""
    from taxlens.activations.capture.estimate import estimate

    target = job.target / "activations.h5"
    found = estimate(job.pair, list(job.suites.values()), to=Path(target), **_options(job, section), part=job.part)
    return StageCost(
        found.minutes + SELF_CHECK / 60, disk=found.bytes, memory=LIBRARIES + found.memory_bytes, words=str(found)
    )
