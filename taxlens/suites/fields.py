"""The fields of published benchmarks under their usual names: which holds the question, the passage, the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from taxlens.activations.items.gold import choice_named, fits_twice
from taxlens.core.errors import ItemError, UsageError, explain, one_of

NAMES = {
    "good": ("sentence_good", "good", "grammatical"),
    "bad": ("sentence_bad", "bad", "ungrammatical"),
    "statement": ("statement", "sentence", "claim", "text"),
    "truth": ("truth", "label", "answer", "gold", "is_true"),
    "question": (
        "question", "prompt", "query", "ctx", "goal", "question_stem", "Question", "problem", "Problem", "input", "stem",
        "startphrase", "sent1",
    ),
    "passage": (
        "passage", "context", "article", "support", "premise", "story", "paragraph", "background", "narrative", "fact1",
        "fact", "facts", "table", "code", "ctx_a", "obs1", "sentence1",
    ),
    "choices": (
        "choices", "options", "endings", "answers", "candidates", "mc1_targets", "answer_choices", "Choices", "Options",
    ),
    "answer": (
        "answer", "gold", "answerKey", "answer_key", "label", "correct", "Answer", "answer_idx", "answer_index",
        "correct_option", "cop", "target", "gold_index", "correct_answer", "Correct Answer", "correct_choice", "ground_truth",
    ),
    "sentence": ("sentence",),
    "option1": ("option1",),
    "option2": ("option2",),
}  # fmt: skip
"""Usual names of each field, the first that a row has is taken."""

GROUPS = ("group", "subject", "category", "topic", "type", "UID", "linguistics_term", "activity_label", "document")
"""Fields taken for an item's group, in order, where values repeat; after them a passage that several rows share."""

IDS = ("id", "pairID", "pair_id", "qID", "ind", "question_id")
_TRUE, _FALSE = ("1", "true", "yes", "t"), ("0", "false", "no", "f")
LABEL_VALUES = 50
"""Most different values of a further field that is kept as a label."""


def field(row: Mapping[str, Any], what: str, where: str) -> Any:
    """The value of a field under its first usual name that the row has.

    Raises:
        ItemError: it has none of them, or an empty one.
    """
    for name in NAMES[what]:
        if row.get(name) not in (None, ""):
            return row[name]
    rows = [("at", where), ("fields", ", ".join(map(str, row)) or "none"), ("looked for", ", ".join(NAMES[what]))]
    fix = f'rename the field to "{NAMES[what][0]}", or say which it is: fields: {{{NAMES[what][0]}: NAME}}.'
    raise ItemError(explain(f"a row has no {what}.", rows, fix))


def renamed(rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str], source: str) -> list[dict[str, Any]]:
    """Rows whose fields stand under usual names too: ``fields`` maps a usual name to the one that the rows have.

    Raises:
        UsageError: no usual field of that name, or a row without the field.
    """
    for usual, theirs in fields.items():
        one_of(usual, list(NAMES), what="field of a benchmark")
        for number, row in enumerate(rows, start=1):
            if theirs not in row:
                found = [("suite", source), ("row", number), ("fields", ", ".join(map(str, row)))]
                raise UsageError(explain(f"a row has no field {theirs!r}.", found, f"fields: {{{usual}: NAME}}"))
    firsts = {usual: NAMES[usual][0] for usual in fields}
    hidden = {name for usual in fields for name in NAMES[usual]} - set(fields.values())
    kept = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
    return [row | {firsts[usual]: row[theirs] for usual, theirs in fields.items()} for row in kept]


def gap_of(sentence: str) -> tuple[str, str, str]:
    """(what stands before the gap, the gap, what stands after it) of a sentence with ``_``, ``__``, ... in it; blank gap: none."""
    found = re.search("_+", sentence)
    return (sentence, "", "") if found is None else (sentence[: found.start()], found[0], sentence[found.end() :])


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


def passage_of(row: Mapping[str, Any], used: Sequence[str] = ()) -> str | None:
    """The text that a row's question is about, or None where it has none; not a field that is used otherwise."""
    for name in NAMES["passage"]:
        value = row.get(name)
        if name not in used and value not in (None, "", [], {}):
            if isinstance(value, Sequence) and not isinstance(value, str):
                return "\n".join(str(part).strip() for part in value)
            if isinstance(value, str):
                return value.strip()
    return None


def answer_index(
    row: Mapping[str, Any], choices: Sequence[str], names: Sequence[str], where: str, *, first: int = 0
) -> int:
    """Which choice a row's answer names: by index (from ``first``), by label or letter in any dress, or by its text.

    Raises:
        ItemError: it names none of them, or an index and a text that do not agree.
    """
    value = field(row, "answer", where)
    rows = [("at", where), ("answer", repr(value)), ("choices", ", ".join(map(repr, choices)))]
    if not names and fits_twice(value, choices, first=first):
        fix = "name the choice by a letter (A, B, ...), or give a number where the format has numbers."
        raise ItemError(explain("the answer is an index or a choice's text: both fit.", rows, fix))
    found = choice_named(value, choices, names, first=first)
    if found is not None:
        return found
    said = str(value).strip()
    if list(choices).count(said) > 1:
        fix = "give the answer's index or letter, or drop such items: skip: [equal_choices]"
        raise ItemError(explain("the answer's text stands twice among the choices.", rows, fix))
    if said.isdigit() and first == 0 and int(said) == len(choices):
        raise ItemError(
            explain("the answer names none of the choices: are answers counted from 1?", rows, "first_answer: 1")
        )
    raise ItemError(explain("the answer names none of the choices.", rows, "give its index (from 0), letter or text."))


def check_first(answers: Sequence[tuple[Any, int]], source: str) -> None:
    """Ask where numbered answers look as if they were counted from 1.

    Args:
        answers: (value, number of choices) of every row that has neither labels nor letters.
        source: for the error.

    Raises:
        ItemError: two rows or more are all numbers, and none of them is 0.
    """
    numbers = [int(str(value).strip()) for value, _ in answers if str(value).strip().isdigit()]
    if len(numbers) < 2 or len(numbers) < len(answers) or 0 in numbers:
        return
    most = max(count for _, count in answers)
    rows = [("suite", source), ("answers", f"{min(numbers)} to {max(numbers)}, never 0"), ("choices", f"up to {most}")]
    fix = "first_answer: 1 where 1 is the first choice, first_answer: 0 where 0 is."
    raise ItemError(explain("are the answers counted from 0 or from 1? No answer is 0.", rows, fix))


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
    names = (*GROUPS, *NAMES["passage"])
    groups = next((v for v in (_column(rows, name) for name in names) if v and 1 < len(set(v)) < len(v)), None)
    return ids, groups or ids


def further_labels(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each row says beside the usual fields, as labels: fields of few values that repeat."""
    used = {name for names in NAMES.values() for name in names} | set(IDS)
    found: list[dict[str, Any]] = [{} for _ in rows]
    for name in dict.fromkeys(str(key) for row in rows for key in row):
        values = [row.get(name) for row in rows]
        plain = [
            v
            for v in values
            if isinstance(v, str | int | float | bool) and (not isinstance(v, str) or 0 < len(v) <= 80)
        ]
        distinct = {str(v) for v in plain}
        if (
            name in used
            or name == "correct"
            or len(plain) < len(rows)
            or not 1 < len(distinct) <= min(LABEL_VALUES, len(rows) - 1)
        ):
            continue
        for labels, value in zip(found, values):
            labels[name] = value
    return found


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    values = [row.get(name) for row in rows]
    usable = all(isinstance(value, str | int) and str(value).strip() for value in values)
    return [str(value) for value in values] if usable else []
