"""The editors of a run: compared on the run's suites, and the one that is recommended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxlens.analysis.editors.editor_tables import EDITOR_SETTINGS, EDITORS_TABLE
from taxlens.core.errors import ConfigError, UsageError, explain
from taxlens.stages.edit.edit_section import EditSection
from taxlens.stages.stage import StageCost

if TYPE_CHECKING:
    from taxlens.analysis.editors.edit import Edit
    from taxlens.analysis.editors.held_out import HeldOutMeasure
    from taxlens.analysis.editors.task import EditTask
    from taxlens.config.schema import Config
    from taxlens.runs.checking import CheckContext
    from taxlens.runs.context import RunContext

FOLDER = "editors"
"""Where a run keeps rows and edits."""


def roles(config: Config, section: EditSection) -> tuple[str, str]:
    """Return the names of the harmful and of the harmless suite.

    Raises:
        ConfigError: one of them is not there.
    """
    names = [suite.name for suite in config.suites]
    benefits = [suite.name for suite in config.suites if suite.kind == "benefit"]
    harm, harmless = section.harm or (benefits[0] if benefits else ""), section.harmless or ""
    for key, name in (("harm", harm), ("harmless", harmless)):
        if name not in names:
            rows = [("suites", ", ".join(names)), (f"edit.{key}", name or "not given")]
            fix = f"edit: {{{key}: NAME}}, with a suite of {'harmful' if key == 'harm' else 'harmless'} prompts."
            raise ConfigError(explain(f"editors need a suite of {key} prompts.", rows, fix))
    return harm, harmless


def check_edit(context: CheckContext, section: EditSection) -> None:
    """Refuse suites that are not there, and a comparison that could not see lost refusals.

    Raises:
        ConfigError: naming the key.
    """
    harm, harmless = roles(context.config, section)
    names = [suite.name for suite in context.config.suites]
    for name in section.suites or ():
        if name not in names or name == harm:
            rows = [("edit.suites", name), ("suites", ", ".join(n for n in names if n != harm))]
            raise ConfigError(explain("there is no such suite to return.", rows))
    if harm == harmless:
        raise ConfigError(explain("harmful prompts need harmless ones beside them.", [("edit.harmless", harmless)]))
    if "harm" not in section.keep:
        rows = [("edit.keep", ", ".join(section.keep) or "nothing")]
        raise ConfigError(explain("refusals of harm alone have to be asked for.", rows, "keep: {harm: 0.95}"))


def run_task(job: RunContext, section: EditSection) -> EditTask:
    """Return the task of a run: the suites that lost on the items to fit on, split alike for every editor."""
    from taxlens.analysis.editors.task import edit_task

    config = job.config
    harm, harmless = roles(config, section)
    suites = [suite for several in job.by_template().values() for suite in several]
    templates = {one.name: job.template_of(one) for one in config.suites}
    asked = section.suites or [s.name for s in suites if s.kind == "capability" and s.name != harmless]
    options: dict[str, Any] = {
        "harm": harm, "harmless": harmless, "template": templates, "holdout": config.split.holdout,
        "disjoint": config.split.disjoint, "unit": section.unit, "seed": config.seed,
        "train_items": None if section.train_items == "all" else section.train_items,
        "held_items": None if section.items == "all" else section.items,
        "checkpoints": {step.source: step for step in job.steps}, "search": section.search,
    }  # fmt: skip
    task = edit_task(job.pair, suites, taxed=list(asked), **options)
    if section.suites is not None:
        return task
    lost = _lost(task)
    if not lost:
        rows = [("suites", ", ".join(asked))]
        raise UsageError(
            explain("no suite lost on the items to fit on: nothing to return.", rows, "name suites: edit.suites")
        )
    return edit_task(job.pair, suites, taxed=lost, **options)


def _lost(task: EditTask) -> list[str]:
    """Taxed suites whose loss in probability on the training items has an interval above 0."""
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure
    from taxlens.core.stats.intervals import mean_interval

    suites = tuple(task.train[name] for name in task.taxed)
    measure = ChoiceMeasure(task.pair, suites, template=dict(task.template), metrics=("probability",))
    base, aligned = measure(task.pair.base.model), measure(task.pair.aligned.model)
    apart = {name: base[name]["probability"] - aligned[name]["probability"] for name in task.taxed}
    return [name for name, loss in apart.items() if mean_interval(loss, measure.groups[name], seed=task.seed).low > 0]


def run_measure(job: RunContext, section: EditSection, task: EditTask) -> HeldOutMeasure:
    """Return what measures the run's editors: its other capability suites are measured beside."""
    from taxlens.analysis.editors.held_out import HeldOutMeasure

    others = [
        suite for several in job.by_template().values() for suite in several
        if suite.kind == "capability" and suite.name not in task.suites
    ]  # fmt: skip
    templates = {one.name: job.template_of(one) for one in job.config.suites}
    return HeldOutMeasure(task, others=others, template=templates, tokens=section.generate)


def stage_edit(job: RunContext, section: EditSection) -> None:
    """Compare the editors of a run: editors.csv, every setting that was tried, and the one that is recommended."""
    from taxlens.analysis.editors.choice import Constraints, recommend
    from taxlens.analysis.editors.compare import compare_editors

    task = run_task(job, section)
    held = run_measure(job, section, task)
    found = compare_editors(
        task, section.editors, held, tries=section.tries, keep=section.keep["harm"], folder=job.run.folder / FOLDER,
        draws=job.config.tax.bootstrap, seed=job.config.seed, progress=job.progress,
    )  # fmt: skip
    job.run.write(EDITORS_TABLE, found.to_frame())
    job.run.write(EDITOR_SETTINGS, found.fronts_frame())
    best = recommend(found, _constraints(section, Constraints))
    job.run.note(
        editors={
            "recommended": best.name, "reason": best.reason, "skipped": dict(found.skipped), "taxed": list(task.taxed),
            "ties": found.ties(best.name) if best.name else [], "fingerprint": found.fingerprint,
        }
    )  # fmt: skip


def edit_of_run(job: RunContext, section: EditSection, name: str) -> tuple[Edit, Any]:
    """Return an editor's edit as the run measured it, and its row.

    Args:
        job: a run whose stage edit has ended.
        section: its options.
        name: an editor of the run, or "recommended".

    Raises:
        UsageError: the run has no such row, or none is recommended.
    """
    from taxlens.analysis.editors.compare import compare_editors, reopened

    if name == "recommended":
        name = (job.run.manifest.get("editors") or {}).get("recommended", "")
        if not name:
            rows = [("why", (job.run.manifest.get("editors") or {}).get("reason", "stage edit was not run"))]
            raise UsageError(explain("no editor is recommended.", rows, "name one: --plan edit:NAME"))
    task, folder = run_task(job, section), job.run.folder / FOLDER
    held = run_measure(job, section, task)
    found = compare_editors(
        task, [name], held, tries=section.tries, keep=section.keep["harm"], folder=folder,
        draws=job.config.tax.bootstrap, seed=job.config.seed,
    )  # fmt: skip
    row = found.row(name)
    return reopened(task, row, folder, tries=section.tries, keep=section.keep["harm"]), row


def edit_cost(job: RunContext, section: EditSection) -> StageCost:
    """Return what the comparison will take: tokens read and trained on, at the stated rate."""
    from taxlens.analysis.editors.cost import comparison_minutes
    from taxlens.stages.needs import training_bytes, weight_bytes
    from taxlens.stages.trials import at_speed

    task = run_task(job, section)
    minutes = comparison_minutes(task, section.editors, tries=section.tries, answer=section.generate)
    disk = len(section.editors) * weight_bytes(job)
    return StageCost(at_speed(job, minutes), disk=disk, memory=training_bytes(job))


def _constraints(section: EditSection, kind: Any) -> Any:
    return kind(keep=dict(section.keep), returned=section.returned, kl=section.kl, certified=section.certified)
