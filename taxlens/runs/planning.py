"""What a run would do and cost, before it does anything."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.config.schema import load_config
from taxlens.config.yaml_file import read_yaml
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages import STAGES


def plan(
    source: Path,
    *,
    overrides: Sequence[str] = (),
    stages: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return what a run of a config (or of stages of it) would do and cost; the models are loaded, nothing is written.

    Args:
        source: a config file or a run folder.
        overrides: `key.sub=value` texts.
        stages: which stages (default: all that the config plans).
        part: (number from 1, of how many) of the capture.
        progress: shows what is under way.
    """
    with tempfile.TemporaryDirectory() as name:
        run = _scratch_run(source, overrides, Path(name) / "run")
        run.manifest |= {"part": list(part)} if part else {}
        job = RunContext(run, progress=progress, target=source if source.is_dir() else Path.cwd())
        wanted = list(stages or job.config.planned)
        found: dict[str, Any] = {"stages": ", ".join(wanted), "pair": repr(job.pair)}
        for suite in job.suites.values():
            found[f"suite {suite.name}"] = f"{len(suite)} items in {len(set(suite.groups))} groups"
        for stage in (stage for stage in STAGES if stage.name in wanted and stage.cost is not None):
            found[stage.name] = stage.cost(job, job.config.of(stage)).words
        return found


def _scratch_run(source: Path, overrides: Sequence[str], folder: Path) -> Run:
    if source.is_dir():
        opened = Run.open(source)
        return Run.create(opened.config, folder, given=opened.manifest["config"]["given"], root=opened.root)
    config = load_config(source, overrides=overrides)
    return Run.create(config, folder, given=read_yaml(source), root=source.parent)
