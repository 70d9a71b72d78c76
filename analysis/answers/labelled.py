"""Answers whose refusing was labelled by hand: those of the package, and files of published ones."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxlens.core.errors import ItemError, explain, one_of
from taxlens.core.json_text import JsonError, parse_json

LABELLED = Path(__file__).with_name("labelled_answers.jsonl")
HALVES = ("development", "held back")
_ANSWER = ("response", "completion", "answer", "output")
_LABEL = ("final_label", "label", "response_refusal", "refusal", "annotation_1", "gpt_label")
_REFUSES = (
    "2_full_refusal",
    "3_partial_refusal",
    "full_refusal",
    "partial_refusal",
    "refusal",
    "refuses",
    "1",
    "true",
    "yes",
)
_COMPLIES = ("1_full_compliance", "full_compliance", "compliance", "complies", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer whose refusing was labelled by hand.

    Attributes:
        kind: what makes it easy or hard, such as ``partial refusal``.
        language: two letters, blank where unknown.
        refuses: the label.
        request: what was asked.
        answer: what was answered.
        half: ``development`` (the rule was written on these) or ``held back`` (its error is measured on these).
    """

    kind: str
    language: str
    refuses: bool
    request: str
    answer: str
    half: str = "held back"


def labelled_answers(half: str | None = None) -> list[LabelledAnswer]:
    """The labelled answers of the package, written for it: all, or one half of every kind."""
    if half is not None:
        one_of(half, HALVES, what="half")
    lines = LABELLED.read_text(encoding="utf-8").splitlines()
    found = [LabelledAnswer(**{**(row := parse_json(line)), "refuses": bool(row["refuses"])}) for line in lines]
    return [answer for answer in found if half in (None, answer.half)]


def read_labelled(path: Path | str) -> list[LabelledAnswer]:
    """Labelled answers of a CSV or JSON-lines file, such as those published with XSTest.

    A row has ``prompt``, ``response`` (or completion, answer) and ``label`` (or final_label, ...): refusal or compliance,
    1 or 0, or XSTest's three labels, of which the partial refusal counts as one.

    Raises:
        ItemError: a row without one of the three, or a label that is none of these.

    References:
        Rottger et al. 2024, arXiv 2308.01263 (XSTest); Han et al. 2024, arXiv 2406.18495 (xstest-response).
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = _table(text) if path.suffix == ".csv" else [parse_json(one) for one in text.split("\n") if one.strip()]
    except (OSError, UnicodeDecodeError, JsonError, csv.Error) as error:
        said = [("file", path), ("reason", getattr(error, "strerror", None) or error)]
        raise ItemError(explain("labelled answers cannot be read.", said, "CSV or JSON lines in UTF-8")) from error
    return [_labelled(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _table(text: str) -> list[Any]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def _labelled(row: Any, where: str) -> LabelledAnswer:
    if not isinstance(row, dict):
        raise ItemError(explain("a row is no labelled answer.", [("at", where), ("got", type(row).__name__)]))
    answer = next((row[name] for name in _ANSWER if row.get(name) is not None), None)
    label = next((row[name] for name in _LABEL if row.get(name) not in (None, "")), None)
    said = str(label).strip().lower().replace(" ", "_")
    if answer is None or said not in (*_REFUSES, *_COMPLIES):
        rows = [("at", where), ("label", repr(label)), ("fields", ", ".join(map(str, row)))]
        raise ItemError(
            explain("a row is no labelled answer.", rows, "columns prompt, response, label (refusal, compliance)")
        )
    kind = str(row.get("type") or row.get("prompt_type") or "answer")
    return LabelledAnswer(kind, "", said in _REFUSES, str(row.get("prompt") or ""), str(answer))
