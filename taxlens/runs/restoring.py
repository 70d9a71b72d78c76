"""The checkpoint or adapter that a plan of a finished run describes."""

from __future__ import annotations

from pathlib import Path

from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.inputs.resolve import resolve_adapter
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages.edit import EDIT_STAGE

EDITED = "edit:"
"""Begins the name of an editor where a plan is asked for."""


def restore_run(
    run: Run, *, plan: str, out: Path | str, accept_benefit_loss: bool = False, as_adapter: bool = False,
    progress: Progress = SILENT,
) -> Path:  # fmt: skip
    """Write the checkpoint that a plan of a run describes.

    Args:
        run: a run with a frontier.
        plan: a plan's name, or "recommended"; "edit:NAME" is an editor of the stage edit, "edit:recommended" its choice.
        out: folder of the checkpoint; must not exist.
        accept_benefit_loss: write it although its measured benefit is below the margin.
        as_adapter: write a LoRA adapter of the same rank on the same base, where the run's pair has one.
        progress: shows what is under way.

    Raises:
        UsageError: no such plan, the folder exists, or the run's pair has no adapter to write.
        CheckError: the benefit falls below the margin and that was not accepted.
    """
    from taxlens.analysis.frontier.plan_files import read_plan
    from taxlens.analysis.frontier.restore import restore
    from taxlens.analysis.frontier.restore_adapter import restore_adapter

    if plan.startswith(EDITED):
        return _restore_edit(run, plan.removeprefix(EDITED), out, accept_benefit_loss, as_adapter, progress)
    if not run.has_file("plans.json"):
        rows = [("run folder", run.folder)]
        raise UsageError(explain("this run has no measured plans.", rows, f"taxlens frontier {run.folder}"))
    record = read_plan(run.checked("plans.json"), plan)
    job = RunContext(run, progress=progress)
    if not as_adapter:
        return restore(job.pair, record, out=out, accept_benefit_loss=accept_benefit_loss)
    if job.config.pair.adapter is None:
        rows = [("base", job.config.pair.base), ("aligned", job.config.pair.aligned)]
        fix = "leave --as-adapter out: a whole checkpoint is written then."
        raise UsageError(explain("this run's pair has no adapter.", rows, fix))
    named = job.config.pair.adapter
    adapter = resolve_adapter(named[-1] if isinstance(named, tuple) else named, job.run.root)
    return restore_adapter(job.pair, record, adapter=adapter, out=out, accept_benefit_loss=accept_benefit_loss)


def _restore_edit(
    run: Run, name: str, out: Path | str, accept_benefit_loss: bool, as_adapter: bool, progress: Progress
) -> Path:
    """Write an editor's model: a checkpoint, its adapter on top of the aligned model, or a steering file for hooks."""
    from taxlens.analysis.editors.write_edit import write_edit
    from taxlens.stages.edit.edit_run import edit_of_run

    if not run.has_file("tables/editors.csv"):
        rows = [("run folder", run.folder)]
        raise UsageError(explain("this run has no measured editors.", rows, f"taxlens edit {run.folder}"))
    run.checked("editors")
    job = RunContext(run, progress=progress)
    section = job.config.of(EDIT_STAGE)
    edit, row = edit_of_run(job, section, name)
    form = "steering" if edit.form == "steering" else "adapter" if as_adapter else "checkpoint"
    return write_edit(
        job.pair, edit, row, out=out, form=form, keep=section.keep["harm"], accept_benefit_loss=accept_benefit_loss
    )
