"""Running: make or reopen the folder, do the stages in order, and leave a manifest that says how it ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.config.schema import Config, apply_overrides, build_config, load_config
from taxlens.config.yaml_file import read_yaml
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.runs.log import logged_to
from taxlens.stages import STAGES
from taxlens.stages.stage import Stage

logger = logging.getLogger(__name__)


def run(
    config: Path | str,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    stages: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    progress: Progress = SILENT,
) -> Run:
    """Do the whole job, or some stages of it, and return the run.

    Args:
        config: a config file, or a run folder to go on with.
        out: the run folder (default `runs/NAME` in the working directory).
        overrides: `key.sub=value` texts, as `--set` takes them.
        resume: go on with a folder that exists; stages that ended well are not done again.
        stages: which stages (default: all that the config plans).
        part: (number from 1, of how many) of the capture, when that is the only stage.
        progress: shows what is under way.

    Returns:
        The finished run.

    Raises:
        UsageError: if the folder exists and `resume` is false.
        CheckError: if a resumed folder was made by another config.

    Example:
        >>> run("configs/demo.yaml", out="runs/demo")        # doctest: +SKIP
        Run('demo', success, 11 tables, 'runs/demo')
    """
    opened = open_or_create(Path(config), out=out, overrides=overrides, resume=resume)
    if part is not None:
        opened.manifest["part"] = list(part)
    again = resume and stages is None
    wanted = tuple(stages or opened.config.planned)
    with opened.locked(), logged_to(opened.folder / "log.jsonl"):
        return _work(RunContext(opened, progress=progress, resume=resume, stages=wanted), wanted, skip_done=again)


def open_or_create(source: Path, *, out: Path | str | None, overrides: Sequence[str], resume: bool) -> Run:
    """Return the run of a run folder, or a new (or resumed) run of a config file.

    Raises:
        UsageError: if the folder exists and `resume` is false, or it is no run folder.
        CheckError: if a resumed folder was made by another config.
    """
    if source.is_dir():
        if out is not None and Path(out).resolve() != source.resolve():
            rows = [("run folder", source), ("--out", out)]
            raise UsageError(explain("a run folder is its own output.", rows, "leave --out away, or give a config"))
        return _with_overrides(Run.open(source), overrides)
    config = load_config(source, overrides=overrides)
    folder = Path(out) if out is not None else Path("runs") / config.name
    if resume and (folder / "run.json").is_file():
        opened = Run.open(folder)
        _same_config(opened, config)
        return opened
    given = apply_overrides(read_yaml(source), overrides)
    return Run.create(config, folder, given=given, root=source.parent)


def _with_overrides(opened: Run, overrides: Sequence[str]) -> Run:
    if not overrides:
        return opened
    values = apply_overrides(opened.manifest["config"]["resolved"], overrides)
    opened.manifest["config"]["resolved"] = json.loads(build_config(values).model_dump_json())
    opened.save()
    return Run.open(opened.folder)


def _same_config(opened: Run, config: Config) -> None:
    before, after = opened.manifest["config"]["resolved"], json.loads(config.model_dump_json())
    different = [
        (key, f"{before.get(key)!r} -> {value!r}"[:160]) for key, value in after.items() if before.get(key) != value
    ]
    if different:
        title = f"{opened.folder} was made by another config."
        raise CheckError(explain(title, different, "the old config, or another --out"))


def _work(job: RunContext, stages: Sequence[str], *, skip_done: bool) -> Run:
    run = job.run
    run.manifest |= {"status": "started", "error": None}
    run.save()
    try:
        for name in stages:
            if skip_done and run.done(name):
                logger.info("stage %s was done before", name)
                continue
            with run.stage(name):
                _do(job, next(stage for stage in STAGES if stage.name == name))
    except BaseException as error:
        status = "cancelled" if isinstance(error, KeyboardInterrupt) else "error"
        logger.exception("run ended by %s", type(error).__name__)
        run.finish(status, error=f"{type(error).__name__}: {error}")
        raise
    run.finish("success")
    return run


def _do(job: RunContext, stage: Stage) -> None:
    """Do a stage; where it is asked alone, draw the figures of its tables too."""
    stage.compute(job, job.config.of(stage))
    if "figures" not in job.stages and any(figure.alone for figure in stage.figures):
        from taxlens.stages.figures.drawing import draw_alone

        draw_alone(job, stage)


def summary(run: Run) -> dict[str, Any]:
    """Return the run's headline numbers as plain values: taxes, closure and where the files are."""
    found: dict[str, Any] = {"run": str(run.folder), "status": run.manifest["status"]}
    for name in (name for stage in STAGES for name in stage.summary):
        if run.has(name):
            found[name] = json.loads(run.table(name).to_json(orient="records"))
    report = run.folder / "report.html"
    return found | ({"report": str(report)} if report.is_file() else {})
