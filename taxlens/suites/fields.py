"""The fields of published benchmarks under their usual names: which holds the question, the choices, the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from taxlens.core.errors import ItemError, UsageError, explain

NAMES = {
    "good": ("sentence_good", "good", "grammatical"),
    "bad": ("sentence_bad", "bad", "ungrammatical"),
    "statement": ("statement", "sentence", "claim", "text"),
    "truth": ("truth", "label", "answer", "gold", "is_true"),
    "question": ("question", "prompt", "query", "ctx", "goal"),
    "choices": ("choices", "options", "endings"),
    "answer": ("answer", "gold", "answerKey", "answer_key", "label", "correct"),
    "sentence": ("sentence",),
    "option1": ("option1",),
    "option2": ("option2",),
}
"""Usual names of each field, the first that a row has is taken."""

GROUPS = ("group", "subject", "category", "topic", "type", "UID", "linguistics_term", "activity_label", "document")
"""Fields taken for an item's group, in order, where values repeat."""

IDS = ("id", "pairID", "pair_id", "qID", "ind", "question_id")
_NUMBERED = tuple(re.compile(pattern) for pattern in (r"choice_?(\d+)", r"ending_?(\d+)", r"sol(\d+)", r"([A-J])"))
_TRUE, _FALSE = ("1", "true", "yes", "t"), ("0", "false", "no", "f")


def field(row: Mapping[str, Any], what: str, where: str) -> Any:
    """The value of a field under its first usual name that the row has.

    Raises:
        ItemError: it has none of them, or an empty one.
    """
    for name in NAMES[what]:
        if row.get(name) not in (None, ""):
            return row[name]
    rows = [("at", where), ("fields", ", ".join(map(str, row)) or "none"), ("looked for", ", ".join(NAMES[what]))]
    raise ItemError(explain(f"a row has no {what}.", rows, f'rename the field to "{NAMES[what][0]}".'))


def truth_of(row: Mapping[str, Any], where: str) -> int:
    """1 where a row's statement is said to be true, 0 where false.

    Raises:
        ItemError: it says neither.
    """
    value = field(row, "truth", where)
    said = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if said in _TRUE or said in _FALSE:
        return int(said in _TRUE)
    rows = [("at", where), ("got", repr(value))]
    raise ItemError(explain("the truth of a statement is neither true nor false.", rows, '"truth": 1 or 0'))


def choices_of(row: Mapping[str, Any], where: str) -> tuple[list[str], list[str]]:
    """A row's choices, and the names that its answer may give them (labels such as "A"; empty where it has none).

    Raises:
        ItemError: fewer than two choices.
    """
    found = next((row[name] for name in NAMES["choices"] if row.get(name)), None)
    names: list[str] = []
    if isinstance(found, Mapping):
        names = [str(label) for label in found.get("label", ())]
        found = found.get("text")
    if found is None:
        columns = next((c for c in (_columns(row, p) for p in _NUMBERED) if len(c) > 1), [])
        found, names = [row[column] for column in columns], [c for c in columns if len(c) == 1]
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) < 2:
        rows = [("at", where), ("got", repr(found)), ("fields", ", ".join(map(str, row)))]
        raise ItemError(explain("a row has no two choices.", rows, '"choices": ["one", "two"]'))
    return [str(choice).strip() for choice in found], names


def answer_index(row: Mapping[str, Any], choices: Sequence[str], names: Sequence[str], where: str) -> int:
    """Which choice a row's answer names: by index, by label or letter, or by its text.

    Raises:
        ItemError: it names none of them.
    """
    value = field(row, "answer", where)
    said = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    letters = [chr(ord("A") + number) for number in range(len(choices))]
    if said in names:
        return list(names).index(said)
    index = int(said) if said.isdigit() and int(said) < len(choices) else None
    text = list(choices).index(said) if list(choices).count(said) == 1 else None
    if index is not None and text not in (None, index) and isinstance(value, str):
        rows = [("at", where), ("answer", repr(value)), ("choices", ", ".join(map(repr, choices)))]
        raise ItemError(
            explain("the answer is an index or a choice's text: both fit.", rows, "give a number, not text.")
        )
    if index is not None:
        return index
    if text is not None:
        return text
    if said in letters:
        return letters.index(said)
    rows = [("at", where), ("answer", repr(value)), ("choices", ", ".join(map(repr, choices)))]
    raise ItemError(explain("the answer names none of the choices.", rows, "give its index (from 0), letter or text."))


def grouped(rows: Sequence[Mapping[str, Any]], group_by: str | None, source: str) -> tuple[list[str], list[str]]:
    """(id, group) of every row: usual fields whose values are unique, or repeat; else the row's number.

    Raises:
        UsageError: not every row has the field ``group_by``.
    """
    ids = next((v for v in (_column(rows, name) for name in IDS) if v and len(set(v)) == len(v)), None)
    ids = ids or [str(number) for number in range(len(rows))]
    if group_by is not None:
        groups = _column(rows, group_by)
        if not groups:
            have = ", ".join(dict.fromkeys(str(name) for row in rows for name in row))
            fix = "name a field that every row has, or leave group_by out."
            found = [("suite", source), ("fields", have or "none")]
            raise UsageError(explain(f"not every row has a field {group_by!r}.", found, fix))
        return ids, groups
    groups = next((v for v in (_column(rows, name) for name in GROUPS) if v and 1 < len(set(v)) < len(v)), None)
    return ids, groups or ids


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    values = [row.get(name) for row in rows]
    usable = all(isinstance(value, str | int) and str(value).strip() for value in values)
    return [str(value) for value in values] if usable else []


def _columns(row: Mapping[str, Any], pattern: re.Pattern[str]) -> list[str]:
    found = [
        (match[1], name) for name in row if (match := pattern.fullmatch(str(name))) and row[name] not in (None, "")
    ]
    return [name for _, name in sorted(found, key=lambda pair: (len(pair[0]), pair[0]))]
