"""What a run would do and cost, before it does anything."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.config.schema import Config, apply_overrides, build_config, load_config, stored_values
from taxlens.config.yaml_file import read_yaml
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.checking import CheckContext, check_stages
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages import STAGES
from taxlens.stages.stage import StageCost


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

    Raises:
        ConfigError: a name or number of the config cannot be met; nothing was loaded then.
    """
    config, given, root, ended = _asked(source, overrides)
    wanted = list(stages or config.planned)
    file = None if source.is_dir() else source
    check_stages(CheckContext(config, root, source=file), wanted, ended=ended)
    with tempfile.TemporaryDirectory() as name:
        run = Run.create(config, Path(name) / "run", given=given, root=root)
        run.manifest |= {"part": list(part)} if part else {}
        job = RunContext(run, progress=progress, stages=wanted, target=source if source.is_dir() else Path.cwd())
        found: dict[str, Any] = {"stages": ", ".join(wanted), "pair": repr(job.pair)}
        for suite in job.suites.values():
            found[f"suite {suite.name}"] = f"{len(suite)} items in {len(set(suite.groups))} groups"
        return found | _costs(job, wanted)


def _asked(source: Path, overrides: Sequence[str]) -> tuple[Config, dict[str, Any], Path, list[str]]:
    """The config, as given, its root, and the stages that ended well."""
    if source.is_dir():
        opened = Run.open(source)
        kept = opened.manifest["config"]
        config = build_config(apply_overrides(stored_values(kept["resolved"]), overrides))
        return config, apply_overrides(kept["given"], overrides), opened.root, list(opened.ended)
    config = load_config(source, overrides=overrides)
    return config, apply_overrides(read_yaml(source), overrides), source.parent, []


def _costs(job: RunContext, wanted: Sequence[str]) -> dict[str, str]:
    """What each stage takes, in words, and all of them together."""
    found, costs = {}, []
    for stage in (stage for stage in STAGES if stage.name in wanted):
        if stage.cost is None:
            continue
        cost: StageCost = stage.cost(job, job.config.of(stage))
        costs.append(cost)
        found[stage.name] = cost.words or str(cost)
    if costs:
        memory = max(cost.memory for cost in costs)
        found["in all"] = str(StageCost(sum(c.minutes for c in costs), sum(c.disk for c in costs), memory))
    return found
