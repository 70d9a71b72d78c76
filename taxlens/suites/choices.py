"""The choices of a row, in the many shapes in which benchmarks write them."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taxlens.core.errors import ItemError, explain
from taxlens.suites.fields import NAMES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"choice[ _]?(\d+)", r"ending[ _]?(\d+)", r"sol(\d+)", r"(?-i:([A-J]))", r"option[ _]?([a-j])", r"op([a-e])",
        r"(?:answer|choice)[ _]?([a-j])", r"(?:option|answer|alternative|hypothesis|hyp)[ _]?(\d+)",
    )
)  # fmt: skip
_RIGHT = ("correct_answer", "Correct Answer", "right_answer", "best_answer", "chosen")
_WRONG = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"distractor[ _]?(\d+)", r"(?:incorrect|wrong)[ _]answer[ _]?(\d*)", r"rejected()")
)
_LETTERED = re.compile(r"(?:^|[,;\n])\s*\(?([a-hA-H])\s*[).:]\s*")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")


@dataclass(frozen=True, slots=True)
class ChoiceSet:
    """The choices of a row.

    Attributes:
        texts: in order.
        names: what an answer may call them (labels, letters); empty where the row gives none.
        right: indices of the right ones where the shape itself says which; else empty.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()
    right: tuple[int, ...] = ()


def choices_of(row: Mapping[str, Any], where: str) -> ChoiceSet:
    """A row's choices.

    Read are a list, ARC's ``{"text": [...], "label": [...]}``, TruthfulQA's ``{"choices": [...], "labels": [...]}``, a
    mapping of letters, a text that holds a list (JSON, Python, numpy, ``a|b|c``, ``a ) one , b ) two``), numbered or
    lettered columns, and a right answer beside wrong ones (whose place is drawn from the question's text).

    Raises:
        ItemError: fewer than two choices, or a choice that is missing between others.
    """
    found = next((row[name] for name in NAMES["choices"] if row.get(name) not in (None, "", [], {})), None)
    made = _from_value(found) or _from_columns(row) or _right_and_wrong(row)
    if made is None or len(made.texts) < 2:
        rows = [("at", where), ("got", repr(found)), ("fields", ", ".join(map(str, row)))]
        fix = '"choices": ["one", "two"], or say which field holds them: fields: {choices: NAME}.'
        raise ItemError(explain("a row has no two choices.", rows, fix))
    for number, text in enumerate(made.texts):
        if not text:
            rows = [("at", where), ("choice", number), ("choices", ", ".join(map(repr, made.texts)))]
            raise ItemError(explain("a choice is empty or missing.", rows, "give each choice a text, or drop the row."))
    return made


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    """Values as texts: what is missing at the end is padding and goes, what is missing before stays as blank."""
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    while (
        texts and not texts[-1] and (values[len(texts) - 1] is None or values[len(texts) - 1] != values[len(texts) - 1])
    ):
        texts.pop()
    return tuple(texts)


def _from_value(found: Any) -> ChoiceSet | None:
    if isinstance(found, str):
        return _from_text(found)
    if isinstance(found, Mapping):
        texts = next(
            (found[name] for name in ("text", "texts", "choices") if isinstance(found.get(name), Sequence)), None
        )
        labels = next((found[name] for name in ("label", "labels") if isinstance(found.get(name), Sequence)), ())
        if texts is None:
            keys = sorted(map(str, found))
            return (
                ChoiceSet(_texts([found[key] for key in keys]), tuple(keys))
                if all(isinstance(v, str) for v in found.values())
                else None
            )
        if texts and labels and set(labels) <= {0, 1} and all(isinstance(v, int) for v in labels):
            return ChoiceSet(_texts(texts), right=tuple(n for n, value in enumerate(labels) if value == 1))
        return ChoiceSet(_texts(texts), tuple(str(label) for label in labels))
    if isinstance(found, Sequence):
        if found and all(isinstance(value, Mapping) and "text" in value for value in found):
            names = tuple(str(value["label"]) for value in found if "label" in value)
            return ChoiceSet(_texts([value["text"] for value in found]), names if len(names) == len(found) else ())
        return ChoiceSet(_texts(found))
    return None


def _from_text(text: str) -> ChoiceSet | None:
    text = text.strip()
    if text[:1] in "[({" and text[:1]:
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            is_numpy = (
                isinstance(value, Sequence) and len(value) == 1
            )  # ['a' 'b']: Python joins what numpy parts by blanks
            if isinstance(value, Sequence | Mapping) and not isinstance(value, str) and not is_numpy:
                return _from_value(value)
        quoted = [one or two for one, two in _QUOTED.findall(text)]
        return ChoiceSet(_texts(quoted)) if len(quoted) > 1 else None
    if "|" in text:
        return ChoiceSet(_texts(text.split("|")))
    parts = _LETTERED.split(text)
    if len(parts) >= 5 and not parts[0].strip():
        return ChoiceSet(_texts([part.strip(" ,;") for part in parts[2::2]]), tuple(letter for letter in parts[1::2]))
    return None


def _from_columns(row: Mapping[str, Any]) -> ChoiceSet | None:
    for pattern in _NUMBERED:
        found = sorted(
            ((match[1], name) for name in row if (match := pattern.fullmatch(str(name)))),
            key=lambda pair: (len(pair[0]), pair[0]),
        )
        present = [(number, name) for number, name in found if row[name] not in (None, "")]
        if len(present) > 1:
            last = found.index(present[-1])
            texts = _texts([row[name] for _, name in found[: last + 1]])
            letters = tuple(number.upper() for number, _ in found[: last + 1]) if found[0][0].isalpha() else ()
            return ChoiceSet(texts, letters)
    return None


def _right_and_wrong(row: Mapping[str, Any]) -> ChoiceSet | None:
    right = next((str(row[name]).strip() for name in _RIGHT if isinstance(row.get(name), str | int | float)), None)
    for pattern in _WRONG:
        columns = sorted(str(name) for name in row if pattern.fullmatch(str(name)) and row[name] not in (None, ""))
        if right and columns:
            wrong = [str(row[name]).strip() for name in columns]
            drawn = hashlib.sha256("\n".join([right, *wrong]).encode("utf-8")).digest()
            place = int.from_bytes(drawn[:4], "big") % (len(wrong) + 1)
            return ChoiceSet((*wrong[:place], right, *wrong[place:]), right=(place,))
    return None
