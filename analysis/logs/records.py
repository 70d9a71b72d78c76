"""What an evaluation log says of each item, whatever harness wrote it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxlens.activations.items.messages import Message
from taxlens.analysis.logs.logged_metrics import LoggedMetric
from taxlens.core.errors import CheckError, ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

GROUP_FIELDS = ("group", "subject", "category", "topic", "type", "document", "passage", "context", "article")
"""Fields of a document that are taken for its group, in order, where values repeat."""

LONGEST_FIELD = 80
"""Characters of a document's field that are kept whole; of a longer one its start and a hash stand for it: groups need no
more, and a log of 10^5 samples stays small."""


@dataclass(frozen=True, slots=True)
class LoggedSample:
    """One item as one model was evaluated on it.

    Attributes:
        key: the document's id within its task.
        doc_hash: hash of the document, or its text where the harness wrote no hash.
        prompt: text as the model saw it, few-shot examples and template included.
        choices: continuations whose log-probability was logged, or the answers offered.
        gold: index of the right choice, or None for a generated answer.
        logp: log-probability of each choice, or None where the log has none.
        values: the harness's own metrics, by their names here (`logged_metrics`); a ratio's (numerator, denominator).
        prompt_hash: hash of the prompt, or blank.
        document: the document's short fields, for its group.
        contexts: where each choice has a context of its own (a gap filled in different ways), one a choice; the
            prompt is then blank.
        also_right: further right choices.
        messages: the conversation that was sent, where the log has it as such.
        rendered: whether the prompt holds its chat template already.
        answers: accepted answers of a generation.
        match: how a generated answer is compared (see `Item.match`).
        instructions: what a generated answer must keep to (IFEval), see `Item.instructions`.
        continuation: the one continuation whose likelihood was logged, where there are no choices.
    """

    key: str
    doc_hash: str
    prompt: str
    choices: tuple[str, ...]
    gold: int | None
    logp: tuple[float, ...] | None
    values: Mapping[str, float | tuple[float, float]]
    prompt_hash: str
    document: Mapping[str, Any] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    also_right: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    rendered: bool = False
    answers: tuple[str, ...] = ()
    match: str = ""
    continuation: str = ""
    instructions: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Hold each text once: two logs of one task, and the choices of all its documents, mostly repeat them."""
        for name in ("prompt", "doc_hash", "prompt_hash", "continuation"):
            object.__setattr__(self, name, sys.intern(str(getattr(self, name))))
        for name in ("choices", "contexts", "answers"):
            object.__setattr__(self, name, tuple(sys.intern(str(text)) for text in getattr(self, name)))


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """One task of one model's log.

    Attributes:
        name: the task.
        source: the file that the samples came from.
        model: what the log calls the model.
        template: ``chat`` where a chat template was applied, else ``plain``.
        settings: what must agree between two comparable evaluations (version, few-shot count, template hash, ...).
        samples: {key: sample}, in the log's order.
        metrics: {name: LoggedMetric} of the values in the samples.
        totals: the log's own aggregates, {metric: value}.
        left_out: keys of samples that the harness itself could not score (errors, no score).
        special_tokens: whether BOS was added to prompts (see `Item.special_tokens`).
        groups: {group of tasks that this one belongs to: the log's own aggregates of it}, outermost first.
        notes: what was passed over while reading.
    """

    name: str
    source: str
    model: str
    template: str
    settings: Mapping[str, str]
    samples: Mapping[str, LoggedSample]
    metrics: Mapping[str, LoggedMetric]
    totals: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    special_tokens: bool | None = None
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def short_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document that may group it: texts and whole numbers; a long text by its start and a hash."""
    return {
        sys.intern(str(name)): sys.intern(_short(value)) if isinstance(value, str) else value
        for name, value in document.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def _short(text: str) -> str:
    if len(text) <= LONGEST_FIELD:
        return text
    return f"{text[: LONGEST_FIELD - 12]}… {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:10]}"


def inside(folder: Path, file: Path) -> Path:
    """The resolved path of a file of a log folder, refused where it leaves the folder (a link, or ``..``).

    Raises:
        CheckError: the file lies elsewhere.
    """
    real, root = file.resolve(), folder.resolve()
    if not real.is_relative_to(root):
        rows = [("log folder", root), ("file", file), ("leads to", real)]
        raise CheckError(explain("a file of the log leaves its folder.", rows, "copy the file itself into the folder."))
    return real


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file of one JSON object a line, or of one JSON array; a line at a time in memory.

    Raises:
        ItemError: the file is no UTF-8, or a line is no JSON object (a log cut short).
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            first = file.read(1)
            file.seek(0)
            if first == "[":
                yield from _array(file.read(), path)
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise ItemError(explain("the log is not UTF-8.", [("file", path), ("byte", error.start)])) from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = parse_json(line, finite=False, unicode=False)
    except JsonError as error:
        rows = [("at", where), ("reason", error.reason)]
        raise ItemError(explain("a line of the log is no JSON.", rows, "was the log cut short?")) from error
    if not isinstance(value, dict):
        rows = [("at", where), ("got", type(value).__name__)]
        raise ItemError(explain("a line of the log is no JSON object.", rows))
    return value


def _array(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        values = parse_json(text, finite=False, unicode=False)
    except JsonError as error:
        rows = [("file", path), ("reason", error.reason)]
        raise ItemError(explain("the log's JSON array cannot be read.", rows, "was the log cut short?")) from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            rows = [("at", f"{path}, sample {number}"), ("got", type(value).__name__)]
            raise ItemError(explain("a sample of the log is no JSON object.", rows))
        yield number, value


def missing_field(name: str, where: object, have: Mapping[str, Any]) -> ItemError:
    """The error for a sample without a field that every such log has."""
    rows = [("at", where), ("fields", ", ".join(map(str, have)) or "none")]
    return ItemError(
        explain(f"a sample of the log has no {name!r}.", rows, "is this a per-sample log (--log_samples)?")
    )
