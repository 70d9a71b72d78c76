"""The suite of a logged task: its prompts as the model saw them, ready to be asked again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from taxlens.activations.items.gold import has_equal_choices
from taxlens.activations.items.item_checks import item_of
from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.logs.records import LoggedSample, LoggedTask
from taxlens.core.errors import ItemError

_FINAL = re.compile(r"####\s*(.+?)\s*$")


def logged_suite(task: LoggedTask, keys: Sequence[str], groups: Sequence[str]) -> tuple[Suite, list[str]]:
    """The suite of a task's documents, and notes of those that taxlens cannot ask.

    Every item passes the checks that a suite's file passes, so that what is written is read again.

    Args:
        task: the log whose prompts are taken.
        keys: the documents, in order.
        groups: [keys] the group of each.

    Raises:
        ItemError: no document can be asked.
    """
    items, refused, equal = [], [], 0
    for key, group in zip(keys, groups):
        item = _item(task, key, task.samples[key], str(group) or key)
        if has_equal_choices(item.choices, item.contexts):
            equal += 1
            continue
        try:
            items.append(item_of(item.to_json(), where=f"{task.source}, document {key!r}"))
        except ItemError as error:
            refused.append(str(error).split("\n")[0])
            first = error
    notes = []
    if equal:
        notes.append(
            f"{task.name}: {equal} of {len(keys)} documents have two equal choices: they are in the ledger, not in the suite."
        )
    if refused:
        notes.append(
            f"{task.name}: {len(refused)} of {len(keys)} documents are in the ledger, not in the suite: {refused[0]}"
        )
    if not items and refused:
        raise first
    if not items:
        raise ItemError(notes[0])
    return Suite(task.name, tuple(items), source=task.source, left_out=equal + len(refused)), notes


def _item(task: LoggedTask, key: str, sample: LoggedSample, group: str) -> Item:
    if sample.logp is None and not sample.choices and not sample.answers and sample.match == "text":
        return Item(id=key, group=group, text=sample.prompt)
    answers, match = _right_answers(sample)
    return Item(
        id=key,
        group=group,
        prompt=None if sample.contexts or sample.messages else sample.prompt,
        choices=sample.choices,
        gold=sample.gold,
        contexts=sample.contexts,
        also_right=sample.also_right,
        messages=sample.messages,
        rendered=sample.rendered,
        special_tokens=None if sample.messages else task.special_tokens,
        answers=() if sample.instructions else answers,
        match="" if sample.instructions else match,
        instructions=sample.instructions,
    )


def _right_answers(sample: LoggedSample) -> tuple[tuple[str, ...], str]:
    """Accepted answers and how they are compared; a worked solution that ends in "#### 5" counts by its number."""
    if sample.answers and all(_FINAL.search(answer) for answer in sample.answers):
        return tuple(dict.fromkeys(_FINAL.findall(answer)[-1] for answer in sample.answers)), "gsm8k"
    return sample.answers, sample.match
