"""From two models' evaluation logs to a suite and the ledger of the numbers already published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite, write_suite
from taxlens.analysis.logs.inspect import is_inspect, read_inspect
from taxlens.analysis.logs.lm_eval import is_lm_eval, read_lm_eval
from taxlens.analysis.logs.records import GROUP_FIELDS, LoggedSample, LoggedTask
from taxlens.analysis.scoring.metrics import item_metrics
from taxlens.analysis.tax.ledger import Paired, few_groups, tax_frame
from taxlens.core.artifacts import write_table
from taxlens.core.errors import ConfigError, ItemError, PairMismatchError, UsageError, explain, one_of
from taxlens.core.result import Result

ALIGNED_WORDS = ("instruct", "chat", "sft", "dpo", "rlhf", "aligned", "-it")


@dataclass(frozen=True, slots=True, repr=False)
class Imported(Result):
    """Two models' logs, paired: the suites as evaluated, and the ledger of the logged scores.

    Attributes:
        suites: one a task, prompts and choices as the models saw them.
        measured: both models' metrics by item, one entry a task.
        notes: what a reader must know: settings that differ, what was passed over.
        frame: tax.csv of the logged scores.
    """

    figure: ClassVar[str] = "tax"

    suites: tuple[Suite, ...]
    measured: tuple[Paired, ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """tax.csv of the logged scores: one row a task and metric."""
        return self.frame.copy()

    def items(self) -> pd.DataFrame:
        """items.csv of the logged scores: one row an item and model; blank where a log has no log-probabilities."""
        frames = []
        for paired in self.measured:
            for model, values in (("base", paired.base), ("aligned", paired.aligned)):
                hits = values["accuracy"] if "accuracy" in values else values["exact_match"]
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
        parts = (
            f"{r.suite} {r.metric} {r.tax * 100:+.1f} pts [{r.low * 100:.1f}, {r.high * 100:.1f}], "
            f"n={r.n_items} items in {r.n_groups} groups"
            for r in rows.itertuples()
        )
        return "Imported: " + "; ".join(parts)


def import_eval(
    base: Path | str,
    aligned: Path | str,
    *,
    task: str | None = None,
    group_by: str | None = None,
    variant: str | None = None,
    out: Path | str | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Imported:
    """Pair two models' per-item logs by document and measure the tax that they already hold.

    Reads lm-eval (``--log_samples``: a folder or a ``samples_*.jsonl``) and Inspect (``.eval``,
    ``.json``, or a folder). The suite has the prompts as they were asked, few-shot examples and
    chat template included: score it with ``templates: [plain]``.

    Args:
        base: log of the base model.
        aligned: log of the aligned model.
        task: read this task only; by default every task that the two logs hold.
        group_by: field of the documents that groups items; by default the first of
            `GROUP_FIELDS` whose values repeat, else each item is a group and a note says so.
        variant: which filter (lm-eval) or scorer (Inspect), where a task has several.
        out: where to write the suite (JSON lines); beside it ``NAME.tax.csv`` and ``NAME.items.csv``
            hold the ledger of the logged scores.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.

    Returns:
        Imported.

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
    names = _tasks(both[0], both[1], task)
    suites, measured, notes = [], [], []
    for name in names:
        one, two = both[0][name], both[1][name]
        _check_documents(one, two)
        groups, note = _groups(list(one.samples.values()), group_by, name)
        notes += [*one.notes, *two.notes, *note, *compare_settings(one, two)]
        suites.append(_suite(one, groups))
        paired, note = _paired(one, two, groups)
        measured.append(paired)
        notes += note
    notes += few_groups(measured)
    frame = tax_frame(measured, bootstrap=bootstrap, seed=seed)
    found = Imported(tuple(suites), tuple(measured), tuple(dict.fromkeys(notes)), frame)
    if out is not None:
        out = Path(out)
        write_suite(found.suite, out)
        write_table(found.to_frame(), out.with_suffix(".tax.csv"))
        write_table(found.items(), out.with_suffix(".items.csv"))
    return found


def read_log(path: Path | str, *, variant: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of a log, whichever harness wrote it.

    Raises:
        ConfigError: there is no such path, or it holds no log that is known.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(explain("the log does not exist.", [("given", path)]))
    if is_lm_eval(path):
        return read_lm_eval(path, filter_name=variant)
    if is_inspect(path):
        return read_inspect(path, scorer=variant)
    fix = "an lm-eval folder written with --log_samples, a samples_*.jsonl, or an Inspect .eval or .json log"
    raise ConfigError(explain("no evaluation log that is known.", [("given", path)], fix))


def compare_settings(base: LoggedTask, aligned: LoggedTask) -> list[str]:
    """A note for everything that makes two evaluations of a task less than comparable."""
    notes = [
        f"{base.name}: {name} differs: base {base.settings.get(name, 'not logged')!r}, "
        f"aligned {aligned.settings.get(name, 'not logged')!r}."
        for name in dict.fromkeys([*base.settings, *aligned.settings])
        if base.settings.get(name) != aligned.settings.get(name)
    ]
    if base.template != aligned.template:
        notes.append(
            f"{base.name}: base was asked in {base.template}, aligned in {aligned.template}: "
            "the tax is of weights and template together."
        )
    differing = sum(base.samples[key].prompt_hash != aligned.samples[key].prompt_hash for key in base.samples)
    if differing and base.template == aligned.template:
        notes.append(f"{base.name}: {differing} of {len(base.samples)} prompts differ between the logs.")
    if base.model == aligned.model and base.model != "unknown":
        notes.append(f"{base.name}: both logs name one model, {base.model!r}.")
    says_aligned = [any(word in task.model.lower() for word in ALIGNED_WORDS) for task in (base, aligned)]
    if says_aligned == [True, False]:
        notes.append(f"{base.name}: are the logs swapped? base is called {base.model!r}, aligned {aligned.model!r}.")
    return notes


def _tasks(base: dict[str, LoggedTask], aligned: dict[str, LoggedTask], task: str | None) -> list[str]:
    common = [name for name in base if name in aligned]
    if not common:
        rows = [("base", ", ".join(base)), ("aligned", ", ".join(aligned))]
        raise PairMismatchError(explain("the two logs hold different tasks.", rows, "give logs of the same task."))
    return [one_of(task, common, what="task of both logs")] if task else common


def _check_documents(base: LoggedTask, aligned: LoggedTask) -> None:
    for one, two in ((base, aligned), (aligned, base)):
        missing = [key for key in one.samples if key not in two.samples]
        if missing:
            rows = [
                ("task", one.name),
                ("missing", f"{len(missing)} of {len(one.samples)}, first: document {missing[0]!r}"),
                ("in", two.source),
            ]
            raise PairMismatchError(
                explain("a log lacks samples of the other.", rows, "evaluate both with one --limit.")
            )
    differing = [k for k, sample in base.samples.items() if sample.doc_hash != aligned.samples[k].doc_hash]
    if differing:
        rows = [
            ("task", base.name),
            ("differing", f"{len(differing)} of {len(base.samples)}, first: document {differing[0]!r}"),
            ("base", base.source),
            ("aligned", aligned.source),
        ]
        raise PairMismatchError(
            explain("the two logs hold different documents.", rows, "evaluate both on one version of the task.")
        )
    disagreeing = [k for k, sample in base.samples.items() if sample.gold != aligned.samples[k].gold]
    if disagreeing:
        first = disagreeing[0]
        rows = [
            ("task", base.name),
            ("disagreeing", f"{len(disagreeing)} of {len(base.samples)}, first: document {first!r}"),
            ("base says", base.samples[first].gold),
            ("aligned says", aligned.samples[first].gold),
        ]
        raise PairMismatchError(
            explain(
                "the two logs disagree on which choice is right.", rows, "evaluate both on one version of the task."
            )
        )


def _groups(samples: Sequence[LoggedSample], group_by: str | None, name: str) -> tuple[list[str], list[str]]:
    fields = [group_by] if group_by else list(GROUP_FIELDS)
    for column in fields:
        values = [sample.document.get(column) for sample in samples]
        if all(isinstance(value, str | int) for value in values):
            counts = Counter(map(str, values))
            if group_by or (1 < len(counts) < len(values)):
                return [str(value) for value in values], [f"{name}: items are grouped by {column!r}."]
    if group_by:
        have = sorted({key for sample in samples for key in sample.document})
        raise UsageError(explain(f"not every document has a field {group_by!r}.", [("fields", ", ".join(have))]))
    return [sample.key for sample in samples], [
        f"{name}: no field groups the items, each is its own group; give group_by where items are related."
    ]


def _suite(task: LoggedTask, groups: Sequence[str]) -> Suite:
    items = tuple(
        Item(
            id=key,
            group=group or key,
            prompt=None if sample.contexts else sample.prompt,
            choices=sample.choices,
            gold=sample.gold,
            contexts=sample.contexts,
        )
        for (key, sample), group in zip(task.samples.items(), groups)
    )
    return Suite(task.name, items, source=task.source)


def _paired(base: LoggedTask, aligned: LoggedTask, groups: Sequence[str]) -> tuple[Paired, list[str]]:
    keys = list(base.samples)
    sides, notes = [], []
    for task in (base, aligned):
        values, note = _metrics([task.samples[key] for key in keys], task)
        sides.append(values)
        notes += note
    common = [metric for metric in sides[0] if metric in sides[1]]
    if not common:
        rows = [("base", ", ".join(sides[0]) or "none"), ("aligned", ", ".join(sides[1]) or "none")]
        raise ItemError(explain(f"the logs of {base.name} share no metric that is known.", rows))
    template = base.template if base.template == aligned.template else "mixed"
    paired = Paired(
        suite=base.name,
        kind="capability",
        template=template,
        items=tuple(keys),
        groups=np.array(groups, dtype=object),
        base={metric: sides[0][metric] for metric in common},
        aligned={metric: sides[1][metric] for metric in common},
    )
    return paired, notes


def _metrics(samples: Sequence[LoggedSample], task: LoggedTask) -> tuple[dict[str, np.ndarray], list[str]]:
    logged = {
        metric: np.array([sample.values[metric] for sample in samples])
        for metric in ("accuracy", "accuracy_norm", "exact_match")
        if all(metric in sample.values for sample in samples)
    }
    if any(sample.logp is None for sample in samples):
        return logged, []
    width = max(len(sample.choices) for sample in samples)
    logp, n_bytes = np.full((len(samples), width), np.nan), np.zeros((len(samples), width))
    for row, sample in enumerate(samples):
        logp[row, : len(sample.choices)] = sample.logp
        n_bytes[row, : len(sample.choices)] = [len(choice.encode("utf-8")) for choice in sample.choices]
    gold = np.array([sample.gold for sample in samples])
    values = item_metrics(logp, gold, n_bytes=n_bytes)
    notes = []
    if "accuracy" in logged and (differing := int((logged["accuracy"] != values["accuracy"]).sum())):
        notes.append(
            f"{task.name}: in {differing} of {len(samples)} samples the logged acc is not the arg max of the "
            f"logged log-probabilities ({task.source})."
        )
    return values | logged, notes
