"""Running: make or reopen the folder, do the stages in order, and leave a manifest that says how it ended."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from taxlens.config.schema import apply_overrides, build_config, load_config, stored_values
from taxlens.config.yaml_file import read_yaml
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.interrupts import check_interrupted, interrupted, resumed_by
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.checking import CheckContext, check_stages
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.runs.provenance import VIEWS, flattened, made_differences, settings_differences
from taxlens.runs.recording import remove
from taxlens.runs.verification import damaged, outdated
from taxlens.runs.workers import SHARED, Share, by_hand, workers_of
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
        resume: go on with a folder that exists; stages that ended well, from what is asked for now, are not done again.
        stages: which stages (default: all that the config plans).
        part: (number from 1, of how many) of a stage that can be shared, when that is the only one.
        progress: shows what is under way.

    Returns:
        The finished run.

    Raises:
        UsageError: if the folder exists and `resume` is false.
        CheckError: if finished stages of the folder were made by another config, or from other files.

    Example:
        >>> run("configs/demo.yaml", out="runs/demo")        # doctest: +SKIP
        Run('demo', success, 11 tables, 'runs/demo')
    """
    if part is not None and (name := next((n for n in stages or () if n not in SHARED), None)):
        rows = [("stage", name), ("in parts", ", ".join(SHARED))]
        raise UsageError(explain("this stage is not cut into parts.", rows, "leave --shard out."))
    opened, asked = open_or_create(Path(config), out=out, overrides=overrides, resume=resume, stages=stages)
    with opened.locked(), opened.logged():
        job = RunContext(opened, progress=progress, resume=resume)
        wanted = _settled(job, asked, stages, part)
        resumed_by(_going_on(opened.folder, stages, part))
        return _work(job, wanted, skip_done=resume and stages is None)


def _going_on(folder: Path, stages: Sequence[str] | None, part: tuple[int, int] | None) -> str:
    """The command that goes on with a run that is interrupted."""
    place = shlex.quote(str(folder))
    if stages is None:
        return f"taxlens run {place} --resume"
    shard = f" --shard {part[0]}/{part[1]}" if part else ""
    return f"taxlens {stages[0]} {place}{shard} --resume"


def open_or_create(
    source: Path,
    *,
    out: Path | str | None,
    overrides: Sequence[str],
    resume: bool,
    stages: Sequence[str] | None = None,
) -> tuple[Run, dict[str, Any] | None]:
    """Return the run of a run folder, or a new (or resumed) run of a config file; and what it is now asked for.

    Nothing is written into a folder that exists: `_settled` does that once the folder is locked.

    Returns:
        (run, (given, resolved and root of the config that is asked for now, or None for the run's own)).

    Raises:
        UsageError: if the folder exists and `resume` is false, or it is no run folder.
        ConfigError: if a new run asks for something that is not there.
    """
    if source.is_dir():
        if out is not None and Path(out).resolve() != source.resolve():
            rows = [("run folder", source), ("--out", out)]
            raise UsageError(explain("a run folder is its own output.", rows, "leave --out away, or give a config"))
        opened = Run.open(source)
        if not overrides:
            return opened, None
        kept = opened.manifest["config"]
        resolved = build_config(apply_overrides(stored_values(kept["resolved"]), overrides))
        given = apply_overrides(kept["given"], overrides)
        return opened, {"given": given, "resolved": json.loads(resolved.model_dump_json()), "root": kept["root"]}
    config = load_config(source, overrides=overrides)
    folder = Path(out) if out is not None else Path("runs") / config.name
    given = apply_overrides(read_yaml(source), overrides)
    if resume and (folder / "run.json").is_file() and (folder / "run.json").stat().st_size:
        asked = {"given": given, "resolved": json.loads(config.model_dump_json()), "root": str(source.parent.resolve())}
        return Run.open(folder), asked
    check_stages(CheckContext(config, source.parent, source=source), tuple(stages or config.planned))
    return Run.create(config, folder, given=given, root=source.parent), None


def _settled(
    job: RunContext, asked: dict[str, Any] | None, stages: Sequence[str] | None, part: tuple[int, int] | None
) -> tuple[str, ...]:
    """Take over what is asked for now, tell every difference, and return the stages to do.

    Raises:
        CheckError: stages that ended well, and are not asked for again, were made from something else.
    """
    run = job.run
    changes: list[tuple[str, str]] = []
    if asked is not None:
        before, after = (flattened(values["resolved"]) for values in (run.manifest["config"], asked))
        changes = settings_differences(before, after)
        run.config, run.root = build_config(asked["resolved"]), Path(asked["root"])
    wanted = tuple(stages or run.config.planned)
    check_stages(CheckContext(run.config, run.root), wanted, ended=run.ended)
    again = wanted if stages is not None or not job.resume else ()
    check_made(job, [name for name in run.ended if name not in again])
    job.stages = wanted
    if asked is not None:
        run.manifest["config"] = asked
        run.manifest["seed"] = run.config.seed
    for key, told in changes:
        job.tell(f"config: {key} {told}")
    if part is not None:
        run.manifest["part"] = list(part)
    run.note(**({"planned": list(wanted)} if stages is None else {}))
    return wanted


def check_made(job: RunContext, names: Iterable[str]) -> None:
    """Refuse to go on where a stage that ended well was made from other settings, checkpoints, items or software.

    Raises:
        CheckError: naming every difference and the stage, key by key.
    """
    rows: dict[str, str] = {}
    for name in names:
        entry = job.run.manifest["stages"][name]
        if name in VIEWS or "section" not in entry:
            continue
        for key, told in made_differences(entry, job.made_from(name)):
            rows[key] = f"{rows[key]}, {name}" if key in rows else f"{told}   in {name}"
    if rows:
        title = f"{job.run.folder} was made by another config, or from other files."
        fix = "the settings and files that it was made from, or another --out"
        raise CheckError(explain(title, list(rows.items())[:20], fix))


def _work(job: RunContext, stages: Sequence[str], *, skip_done: bool) -> Run:
    run = job.run
    run.note(status="started", error=None)
    try:
        with workers_of(run, stages if any(not run.done(name) for name in stages) or not skip_done else ()) as share:
            for number, name in enumerate(stages, start=1):
                why = _reason(run, name) if skip_done else ""
                if why is None:
                    logger.info("stage %s was done before", name)
                    continue
                if why:
                    job.tell(f"stage {name} is done again: {why}")
                with job.progress.stage(name, number=number, of=len(stages)):
                    _one_stage(job, name, share)
    except BaseException as error:
        stopped = interrupted(error)
        logger.exception("run ended by %s", type(error).__name__)
        run.finish("cancelled" if stopped else "error", error=f"{type(error).__name__}: {error}")
        raise
    run.finish("success")
    return run


def _do(job: RunContext, stage: Stage) -> None:
    """Do a stage; where it is asked alone, draw the figures of its tables too."""
    stage.compute(job, job.config.of(stage))
    if "figures" not in job.stages and any(figure.alone for figure in stage.figures):
        from taxlens.stages.figures.drawing import draw_alone

        draw_alone(job, stage)


def _reason(run: Run, name: str) -> str | None:
    """Why a stage is to be done: "" for the first time, None not at all; damaged files are removed."""
    if not run.done(name):
        return ""
    if wrong := damaged(run, name):
        remove(run.folder, wrong)
        return f"{wrong[0]} is not as it was written" + (f", nor are {len(wrong) - 1} others" if len(wrong) > 1 else "")
    return outdated(run, name)


def _one_stage(job: RunContext, name: str, share: Share) -> None:
    made = job.made_from(name)
    if job.part is not None and name != "capture":
        share = by_hand(job)
    with job.run.stage(name, made_from=made), share(name, made):
        if job.part is None or name == "capture":
            _do(job, next(stage for stage in STAGES if stage.name == name))
        check_interrupted()
        job.run.manifest |= job.facts
        after = job.made_from(name)
        changed = made_differences(made, after)
        if changed:
            raise CheckError(explain(f"what stage {name} works on changed while it ran.", changed, "do it again"))
        if made.get("pair") != after.get("pair"):  # fetched only now
            check_made(job, [other for other in job.run.ended if other != name])
            job.run.manifest["stages"][name]["pair"] = after["pair"]


def redo_view(run: Run, name: str, work: Callable[[], Sequence[Path]], *, keep: bool = False) -> list[Path]:
    """Do one of the stages that only show results again, and return the paths that `work` gives.

    Args:
        run: the run.
        name: "figures" or "report".
        work: writes the files.
        keep: keep the stage's other files.
    """
    with run.locked():
        job = RunContext(run)
        with run.stage(name, made_from=job.made_from(name), keep=keep):
            return list(work())


def summary(run: Run) -> dict[str, Any]:
    """Return the run's headline numbers as plain values: taxes, closure and where the files are."""
    found: dict[str, Any] = {"run": str(run.folder), "status": run.manifest["status"]}
    for name in (name for stage in STAGES for name in stage.summary):
        if run.has(name):
            found[name] = json.loads(run.table(name).to_json(orient="records"))
    report = run.folder / "report.html"
    return found | ({"report": str(report)} if report.is_file() else {})
