"""Two logs of one task: the documents that both hold, and everything in which the two evaluations differ."""

from __future__ import annotations

import re
from collections.abc import Sequence

from taxlens.analysis.logs.logged_metrics import influence
from taxlens.analysis.logs.records import LoggedTask
from taxlens.core.errors import PairMismatchError, explain

ALIGNED_WORDS = ("instruct", "chat", "sft", "dpo", "rlhf", "aligned", "it")
BASE_WORDS = ("base", "pretrained", "pt")
TOTALS_TOLERANCE = 1e-9
_PARTS = re.compile(r"[^a-z0-9.]+")


def common_keys(base: LoggedTask, aligned: LoggedTask) -> tuple[list[str], list[str]]:
    """The documents that are compared, in base's order, and notes of those that either harness could not score.

    Raises:
        PairMismatchError: a log lacks documents of the other, holds other documents, or names other right choices.
    """
    notes = []
    for one, two in ((base, aligned), (aligned, base)):
        missing = [key for key in one.samples if key not in two.samples and key not in two.left_out]
        if missing:
            rows = [
                ("task", one.name),
                ("missing", f"{len(missing)} of {len(one.samples)}, first: document {missing[0]!r}"),
                ("in", two.source),
            ]
            raise PairMismatchError(
                explain("a log lacks samples of the other.", rows, "evaluate both with one --limit.")
            )
        if one.left_out:
            notes.append(
                f"{one.name}: {len(one.left_out)} samples without a score in {one.source}: left out of both models."
            )
    keys = [key for key in base.samples if key in aligned.samples]
    if not keys:
        rows = [("task", base.name), ("base", base.source), ("aligned", aligned.source)]
        raise PairMismatchError(explain("no document has a score in both logs.", rows))
    _check_equal(base, aligned, keys)
    return keys, notes


def _check_equal(base: LoggedTask, aligned: LoggedTask, keys: Sequence[str]) -> None:
    differing = [k for k in keys if base.samples[k].doc_hash != aligned.samples[k].doc_hash]
    if differing:
        rows = [
            ("task", base.name),
            ("differing", f"{len(differing)} of {len(keys)}, first: document {differing[0]!r}"),
            ("base", base.source),
            ("aligned", aligned.source),
        ]
        raise PairMismatchError(
            explain("the two logs hold different documents.", rows, "evaluate both on one version of the task.")
        )
    golds = [(base.samples[k], aligned.samples[k], k) for k in keys]
    disagreeing = [
        k
        for one, two, k in golds
        if (one.gold, one.also_right) != (two.gold, two.also_right) and not _letters(one, two)
    ]
    if disagreeing:
        first = disagreeing[0]
        rows = [
            ("task", base.name),
            ("disagreeing", f"{len(disagreeing)} of {len(keys)}, first: document {first!r}"),
            ("base says", base.samples[first].gold),
            ("aligned says", aligned.samples[first].gold),
        ]
        raise PairMismatchError(
            explain(
                "the two logs disagree on which choice is right.", rows, "evaluate both on one version of the task."
            )
        )


def _letters(one: object, two: object) -> bool:
    """Whether both samples were answered with letters whose order a solver may have shuffled."""
    return all(getattr(s, "messages", ()) and getattr(s, "logp", None) is None for s in (one, two))


def compare_settings(base: LoggedTask, aligned: LoggedTask, keys: Sequence[str]) -> list[str]:
    """A note for everything that makes two evaluations of a task less than comparable."""
    notes = [
        f"{base.name}: {name} differs: base {_short(base.settings.get(name, 'not logged'))}, "
        f"aligned {_short(aligned.settings.get(name, 'not logged'))}."
        for name in dict.fromkeys([*base.settings, *aligned.settings])
        if base.settings.get(name) != aligned.settings.get(name) and base.settings and aligned.settings
    ]
    if base.template != aligned.template:
        notes.append(
            f"{base.name}: base was asked in {base.template}, aligned in {aligned.template}: "
            "the tax is of weights and template together."
        )
    if base.special_tokens != aligned.special_tokens:
        notes.append(f"{base.name}: BOS was added by other rules in the two logs: the suite follows base's.")
    pairs = [(base.samples[key].prompt_hash, aligned.samples[key].prompt_hash) for key in keys]
    differing = sum(one != two for one, two in pairs if one and two)
    if differing and base.template == aligned.template:
        notes.append(f"{base.name}: {differing} of {len(keys)} prompts differ between the logs.")
    if base.model == aligned.model and base.model != "unknown":
        notes.append(f"{base.name}: both logs name one model, {base.model!r}.")
    if looks_swapped(base.model, aligned.model):
        notes.append(f"{base.name}: are the logs swapped? base is called {base.model!r}, aligned {aligned.model!r}.")
    return notes


def looks_swapped(base: str, aligned: str) -> bool:
    """Whether the base's name says that it is aligned, and the aligned model's that it is the base of it."""
    one, two = (
        [part for part in _PARTS.split(name.rstrip("/").split("/")[-1].lower()) if part] for name in (base, aligned)
    )
    extra = [part for part in one if part in ALIGNED_WORDS]
    if not extra or set(two) & set(ALIGNED_WORDS):
        return False
    return [part for part in one if part not in ALIGNED_WORDS] == two or bool(set(two) & set(BASE_WORDS))


def compare_totals(task: LoggedTask) -> list[str]:
    """Notes where the samples do not give the log's own aggregates, or are fewer than it counts."""
    notes = []
    count = len(task.samples) + len(task.left_out)
    said = task.totals.get("documents")
    if said is not None and round(said) != count:
        notes.append(
            f"{task.name}: the log counts {round(said)} documents, {task.source} holds {count}: what follows is of these alone."
        )
    for name, metric in task.metrics.items():
        if name not in task.totals:
            continue
        found = float(influence(metric, [sample.values[name] for sample in task.samples.values()]).mean())
        logged = task.totals[name]
        if abs(found - logged) > TOTALS_TOLERANCE * max(1.0, abs(logged)):
            notes.append(
                f"{task.name}: {name} of the samples is {found:.6g}, the log's own is {logged:.6g} ({task.source})."
            )
    return notes


def joined_notes(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes without repeats; one that many tasks share is said once, with the number of tasks."""
    tasks: dict[str, list[str]] = {}
    for note in notes:
        name, _, text = note.partition(": ")
        tasks.setdefault(text or note, []).append(name if text else "")
    found = []
    for text, names in tasks.items():
        different = list(dict.fromkeys(names))
        if len(different) > 2:
            found.append(f"{len(different)} tasks ({different[0]}, {different[1]}, ...): {text}")
        else:
            found += [f"{name}: {text}" if name else text for name in different]
    return tuple(found)


def _short(value: str) -> str:
    return repr(value if len(value) <= 120 else f"{value[:117]}...")
