"""What a run would do and cost, before it does anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    with _trial_run(source, overrides, stages, part, progress) as job:
        found: dict[str, Any] = {"stages": ", ".join(job.stages), "pair": repr(job.pair)}
        for suite in job.suites.values():
            found[f"suite {suite.name}"] = f"{len(suite)} items in {len(set(suite.groups))} groups"
        costs = _costs(job)
    found |= {name: f"{cost}{f' ({cost.words})' if cost.words else ''}" for name, cost in costs.items()}
    if costs:
        memory = max(cost.memory for cost in costs.values())
        found["in all"] = str(
            StageCost(sum(c.minutes for c in costs.values()), sum(c.disk for c in costs.values()), memory)
        )
    return found


def stage_costs(
    source: Path, *, overrides: Sequence[str] = (), stages: Sequence[str] | None = None
) -> dict[str, StageCost]:
    """Return what each stage of a run would take, by its name.

    Args:
        source: a config file or a run folder.
        overrides: `key.sub=value` texts.
        stages: which stages (default: all that the config plans).

    Raises:
        ConfigError: as `plan`.
    """
    with _trial_run(source, overrides, stages, None, SILENT) as job:
        return _costs(job)


@contextmanager
def _trial_run(
    source: Path,
    overrides: Sequence[str],
    stages: Sequence[str] | None,
    part: tuple[int, int] | None,
    progress: Progress,
) -> Iterator[RunContext]:
    """A run in a folder that is gone afterwards, its config checked."""
    config, given, root, ended = _asked(source, overrides)
    wanted = tuple(stages or config.planned)
    file = None if source.is_dir() else source
    check_stages(CheckContext(config, root, source=file), wanted, ended=ended)
    with tempfile.TemporaryDirectory() as name:
        run = Run.create(config, Path(name) / "run", given=given, root=root)
        run.manifest |= {"part": list(part)} if part else {}
        yield RunContext(run, progress=progress, stages=wanted, target=source if source.is_dir() else Path.cwd())


def _asked(source: Path, overrides: Sequence[str]) -> tuple[Config, dict[str, Any], Path, list[str]]:
    """The config, as given, its root, and the stages that ended well."""
    if source.is_dir():
        opened = Run.open(source)
        kept = opened.manifest["config"]
        config = build_config(apply_overrides(stored_values(kept["resolved"]), overrides))
        return config, apply_overrides(kept["given"], overrides), opened.root, list(opened.ended)
    config = load_config(source, overrides=overrides)
    return config, apply_overrides(read_yaml(source), overrides), source.parent, []


def _costs(job: RunContext) -> dict[str, StageCost]:
    """What each stage takes, by its name."""
    planned = [stage for stage in STAGES if stage.name in job.stages and stage.cost is not None]
    return {stage.name: stage.cost(job, job.config.of(stage)) for stage in planned if stage.cost is not None}
