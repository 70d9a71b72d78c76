"""From two models' evaluation logs to a suite and the ledger of the numbers already published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Suite, write_suite
from taxlens.activations.models.loading import load_model
from taxlens.analysis.logs.inspect import is_inspect, read_inspect
from taxlens.analysis.logs.lighteval import is_lighteval, read_lighteval
from taxlens.analysis.logs.lm_eval import is_lm_eval, read_lm_eval
from taxlens.analysis.logs.logged_metrics import common_metrics, influence, known_metric
from taxlens.analysis.logs.logged_suites import logged_suite
from taxlens.analysis.logs.olmes import is_olmes, read_olmes
from taxlens.analysis.logs.pairing import common_keys, compare_settings, compare_totals, joined_notes
from taxlens.analysis.logs.records import GROUP_FIELDS, LoggedSample, LoggedTask
from taxlens.analysis.logs.rescoring import check_log, check_notes
from taxlens.analysis.logs.task_groups import grouped_pair, groups_in
from taxlens.analysis.scoring.metrics import item_metrics, metric_of, probability_value, shown_metric
from taxlens.analysis.tax.ledger import Paired, few_groups, tax_frame
from taxlens.core.artifacts import write_table
from taxlens.core.errors import ConfigError, ItemError, PairMismatchError, UsageError, explain, one_of
from taxlens.core.result import Result


@dataclass(frozen=True, slots=True, repr=False)
class Imported(Result):
    """Two models' logs, paired: the suites as evaluated, and the ledger of the logged scores.

    Attributes:
        suites: one a task, or a group of tasks (ids then begin with their task); prompts as the models saw them.
        measured: both models' metrics by item, one entry a task, groups of tasks first.
        notes: what a reader must know: settings that differ, totals that do not fit, what was left out.
        frame: tax.csv of the logged scores.
        check: the suites asked again of a model, against the logged log-probabilities (`check_log`); else empty.
    """

    figure: ClassVar[str] = "tax"

    suites: tuple[Suite, ...]
    measured: tuple[Paired, ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame
    check: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """tax.csv of the logged scores: one row a task (or group of tasks) and metric."""
        return self.frame.copy()

    def items(self) -> pd.DataFrame:
        """items.csv of the logged scores: one row an item and model; blank where a log has no log-probabilities."""
        frames = []
        for paired in self.measured:
            for model, values in (("base", paired.base), ("aligned", paired.aligned)):
                hits = next((values[m] for m in values if metric_of(m).hit), next(iter(values.values())))
                frame = pd.DataFrame(
                    {"suite": paired.suite, "item": paired.items, "group": paired.groups, "template": paired.template}
                )
                frame["model"], frame["correct"] = model, hits
                for metric in ("probability", "margin", "nll"):
                    frame[metric] = values.get(metric, np.nan)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @property
    def suite(self) -> Suite:
        """The one suite of a single task, or the items of all tasks together (ids prefixed by their task)."""
        if len(self.suites) == 1:
            return self.suites[0]
        items = tuple(
            replace(i, id=f"{s.name}/{i.id}", group=f"{s.name}/{i.group}") for s in self.suites for i in s.items
        )
        return Suite("imported", items)

    def __repr__(self) -> str:
        rows = self.frame.drop_duplicates("suite")
        parts = []
        for row in rows.itertuples():
            metric = shown_metric(row.metric)
            ends = ", ".join(metric.shown(value) for value in (row.low, row.high))
            unit = "pts" if metric.unit == "points" else metric.unit
            parts.append(
                f"{row.suite} {row.metric} {metric.shown(row.tax, sign=True)} {unit} [{ends}], "
                f"n={row.n_items} items in {row.n_groups} groups"
            )
        return "Imported: " + "; ".join(parts)


def import_eval(
    base: Path | str,
    aligned: Path | str,
    *,
    task: str | None = None,
    group_by: str | None = None,
    variant: str | None = None,
    metrics: Sequence[str] | None = None,
    check: Any = None,
    out: Path | str | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Imported:
    """Pair two models' per-item logs by document and measure the tax that they already hold.

    Reads lm-eval (``--log_samples``), the Open LLM Leaderboard's details, lighteval details, OLMES predictions and
    Inspect. The suite has the prompts as they were asked, few-shot examples and chat template included: asked of the
    logged model it gives the logged numbers, which ``check`` shows.

    Args:
        base: log of the base model.
        aligned: log of the aligned model.
        task: read this task only, or this group of tasks (such as ``mmlu``); by default every task of both logs.
        group_by: field of the documents that groups items; by default the first of `GROUP_FIELDS` whose values repeat,
            else each item is a group and a note says so. In a group of tasks each task is a group.
        variant: which filter (lm-eval) or scorer (Inspect), where a task has several.
        metrics: names of the metrics to keep; by default all that both logs have.
        check: a model (folder, hub id or loaded) that the suites are asked of again.
        out: where to write the suite (JSON lines); beside it ``NAME.tax.csv`` and ``NAME.items.csv`` hold the ledger of
            the logged scores, ``NAME.notes.txt`` the notes, ``NAME.check.csv`` the check.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.

    Raises:
        ConfigError: a path that is no log.
        ItemError: a log that cannot be read, or a document logged twice.
        PairMismatchError: logs of different tasks or documents, or samples missing in one.
        CheckError: a file or archive entry that leaves the log's folder.

    Example:
        >>> found = import_eval("logs/base", "logs/aligned")  # doctest: +SKIP
        >>> found.to_frame()[["suite", "metric", "tax", "low", "high"]]  # doctest: +SKIP
    """
    both = [read_log(path, variant=variant) for path in (base, aligned)]
    names, groups = _tasks(both[0], both[1], task)
    check = load_model(check) if isinstance(check, str | Path) else check
    suites, measured, checks = {}, {}, []
    notes: list[str] = []
    for name in names:
        one, two = both[0][name], both[1][name]
        keys, told = common_keys(one, two)
        quiet = any(name in tasks for tasks in groups.values())
        labels, note = _groups([one.samples[key] for key in keys], group_by, name, quiet=quiet)
        notes += [*one.notes, *two.notes, *told, *note, *compare_settings(one, two, keys)]
        notes += [*compare_totals(one), *compare_totals(two)]
        found, policy = check_log(one, two, check) if check is not None else (pd.DataFrame(), one.special_tokens)
        checks.append(found)
        suites[name], note = logged_suite(replace(one, special_tokens=policy), keys, labels)
        measured[name], told = _paired(one, two, keys, labels, metrics)
        notes += [*note, *told]
    for group, tasks in groups.items():
        totals = [both[n][tasks[0]].groups.get(group, {}) for n in (0, 1)]
        measured[group], told = grouped_pair(group, [measured[name] for name in tasks], *totals)
        notes += told
    entries = tuple(measured[name] for name in [*groups, *names])
    notes += few_groups([measured[name] for name in names if not any(name in tasks for tasks in groups.values())])
    checked = _checked(checks, asked=check is not None)
    notes += check_notes(checked)
    imported = Imported(
        suites=_joined(suites, groups),
        measured=entries,
        notes=joined_notes(notes),
        frame=tax_frame(entries, bootstrap=bootstrap, seed=seed),
        check=checked,
    )
    if out is not None:
        _write(imported, Path(out))
    return imported


def read_log(path: Path | str, *, variant: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of a log, whichever harness wrote it.

    Raises:
        ConfigError: there is no such path, or it holds no log that is known.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(explain("the log does not exist.", [("given", path)]))
    if is_olmes(path):
        return read_olmes(path)
    if is_lm_eval(path):
        return read_lm_eval(path, filter_name=variant)
    if is_inspect(path):
        return read_inspect(path, scorer=variant)
    if is_lighteval(path):
        return read_lighteval(path)
    fix = (
        "an lm-eval folder written with --log_samples, a samples file, lighteval details (.parquet), OLMES predictions, or an "
        "Inspect .eval or .json log. HELM's run folders are not read: export its scenario state to JSON lines of items."
    )
    raise ConfigError(explain("no evaluation log that is known.", [("given", path)], fix))


def _tasks(
    base: Mapping[str, LoggedTask], aligned: Mapping[str, LoggedTask], task: str | None
) -> tuple[list[str], dict[str, list[str]]]:
    """The tasks that are read, and the groups of them."""
    common = [name for name in base if name in aligned]
    if not common:
        rows = [("base", ", ".join(base)), ("aligned", ", ".join(aligned))]
        raise PairMismatchError(explain("the two logs hold different tasks.", rows, "give logs of the same task."))
    groups = groups_in(base, aligned)
    if task is None:
        return common, groups
    if task in groups:
        inner = {group: names for group, names in groups.items() if set(names) <= set(groups[task])}
        return groups[task], {task: groups[task]} | {group: names for group, names in inner.items() if group != task}
    return [one_of(task, [*groups, *common], what="task of both logs")], {}


def _joined(suites: Mapping[str, Suite], groups: Mapping[str, Sequence[str]]) -> tuple[Suite, ...]:
    """One suite for each outermost group of tasks, its tasks as groups of items, and one for every other task."""
    found: list[Suite] = []
    taken: set[str] = set()
    for group, names in groups.items():
        if not taken & set(names):
            items = tuple(replace(i, id=f"{name}/{i.id}", group=name) for name in names for i in suites[name].items)
            found.append(
                Suite(group, items, source=suites[names[0]].source, left_out=sum(suites[n].left_out for n in names))
            )
            taken |= set(names)
    return tuple(found) + tuple(suite for name, suite in suites.items() if name not in taken)


def _groups(
    samples: Sequence[LoggedSample], group_by: str | None, name: str, *, quiet: bool
) -> tuple[list[str], list[str]]:
    fields = [group_by] if group_by else list(GROUP_FIELDS)
    for column in fields:
        values = [sample.document.get(column) for sample in samples]
        if all(isinstance(value, str | int) for value in values):
            counts = Counter(map(str, values))
            if group_by or (1 < len(counts) < len(values)):
                return [str(value) for value in values], [] if quiet else [f"{name}: items are grouped by {column!r}."]
    if group_by:
        have = sorted({key for sample in samples for key in sample.document})
        raise UsageError(explain(f"not every document has a field {group_by!r}.", [("fields", ", ".join(have))]))
    note = f"{name}: no field groups the items, each is its own group; give group_by where items are related."
    return [sample.key for sample in samples], [] if quiet else [note]


def _paired(
    base: LoggedTask, aligned: LoggedTask, keys: Sequence[str], groups: Sequence[str], wanted: Sequence[str] | None
) -> tuple[Paired, list[str]]:
    sides, notes = [], []
    for task in (base, aligned):
        values, note = _metrics(task, keys)
        sides.append(values)
        notes += note
    common = [metric for metric in sides[0] if metric in sides[1]]
    shared = set(common_metrics(base.metrics, aligned.metrics))
    common = [m for m in common if m in shared or m not in base.metrics]
    if wanted is not None:
        for metric in wanted:
            one_of(metric, common, what=f"metric of both logs of {base.name}", error=UsageError)
        common = [metric for metric in common if metric in wanted]
    if not common:
        rows = [
            (side, ", ".join([*task.metrics, *task.totals]) or "none")
            for side, task in (("base", base), ("aligned", aligned))
        ]
        fix = "evaluate both with one metric that has a number an item."
        raise ItemError(explain(f"the logs of {base.name} share no metric with a number an item.", rows, fix))
    template = base.template if base.template == aligned.template else "mixed"
    paired = Paired(
        suite=base.name,
        kind="capability",
        template=template,
        items=tuple(keys),
        groups=np.array([str(group) for group in groups], dtype=object),
        base={metric: sides[0][metric] for metric in common},
        aligned={metric: sides[1][metric] for metric in common},
    )
    return paired, notes


def _metrics(task: LoggedTask, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """{metric: one number an item}: the logged ones, and those that follow from logged log-probabilities."""
    samples = [task.samples[key] for key in keys]
    logged: dict[str, np.ndarray] = {}
    for name, metric in task.metrics.items():
        known_metric(metric)
        logged[name] = influence(metric, [sample.values[name] for sample in samples])
    if any(sample.logp is None or len(sample.choices) < 2 for sample in samples):
        return logged, []
    width = max(len(sample.choices) for sample in samples)
    logp = np.full((len(samples), width), np.nan)
    for row, sample in enumerate(samples):
        logp[row, : len(sample.choices)] = sample.logp
    gold = np.array([sample.gold for sample in samples])
    if any(sample.also_right for sample in samples):
        mass = [
            sum(probability_value(logp[[n]], np.array([g]))[0] for g in (s.gold, *s.also_right))
            for n, s in enumerate(samples)
        ]
        return logged | {"probability": np.array(mass)}, []
    values = item_metrics(logp, gold, metrics=("accuracy", "probability", "margin", "nll"))
    notes = []
    if "accuracy_norm" in logged:
        notes.append(
            f"{task.name}: accuracy_norm is the log's own, by characters; asked again, taxlens divides by the bytes of a choice."
        )
    if "stereotype_share" in logged:
        values = {name: value for name, value in values.items() if name != "accuracy"}
    if "accuracy" in logged and (differing := int((logged["accuracy"] != values["accuracy"]).sum())):
        notes.append(
            f"{task.name}: in {differing} of {len(samples)} samples the logged acc is not the arg max of the "
            f"logged log-probabilities ({task.source})."
        )
    return {
        **{n: v for n, v in values.items() if n == "accuracy"},
        **logged,
        **{n: v for n, v in values.items() if n not in logged},
    }, notes


def _checked(checks: Sequence[pd.DataFrame], *, asked: bool) -> pd.DataFrame:
    found = pd.concat(checks, ignore_index=True) if checks else pd.DataFrame()
    if asked and not len(found):
        raise ItemError(explain("the logs hold no log-probabilities to check.", (), "leave check out."))
    return found


def _write(imported: Imported, out: Path) -> None:
    write_suite(imported.suite, out)
    write_table(imported.to_frame(), out.with_suffix(".tax.csv"))
    write_table(imported.items(), out.with_suffix(".items.csv"))
    if len(imported.check):
        write_table(imported.check, out.with_suffix(".check.csv"))
    out.with_suffix(".notes.txt").write_text("".join(f"{note}\n" for note in imported.notes), encoding="utf-8")
