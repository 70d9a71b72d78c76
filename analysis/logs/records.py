"""What an evaluation log says of each item, whatever harness wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxlens.core.errors import CheckError, ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

GROUP_FIELDS = ("group", "subject", "category", "topic", "type", "document", "passage", "context")
"""Fields of a document that are taken for its group, in order, where values repeat."""


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
        values: the harness's own metrics that taxlens knows, by taxlens's names.
        prompt_hash: hash of the prompt, or blank.
        document: the document's fields, for its group.
        contexts: where each choice has a context of its own (a gap filled in different ways), one a choice; the
            prompt is then blank.
    """

    key: str
    doc_hash: str
    prompt: str
    choices: tuple[str, ...]
    gold: int | None
    logp: tuple[float, ...] | None
    values: Mapping[str, float]
    prompt_hash: str
    document: Mapping[str, Any] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()


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
        notes: what was passed over while reading.
    """

    name: str
    source: str
    model: str
    template: str
    settings: Mapping[str, str]
    samples: Mapping[str, LoggedSample]
    notes: tuple[str, ...] = ()


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
    """(line number, object) of a JSON-lines file.

    Raises:
        ItemError: the file is no UTF-8, or a line is no JSON object (a log cut short).
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ItemError(explain("the log is not UTF-8.", [("file", path), ("byte", error.start)])) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, finite=False)
        except JsonError as error:
            rows = [("at", f"{path}:{number}"), ("reason", error.reason)]
            raise ItemError(explain("a line of the log is no JSON.", rows, "was the log cut short?")) from error
        if not isinstance(value, dict):
            rows = [("at", f"{path}:{number}"), ("got", type(value).__name__)]
            raise ItemError(explain("a line of the log is no JSON object.", rows))
        yield number, value


def missing_field(name: str, where: object, have: Mapping[str, Any]) -> ItemError:
    """The error for a sample without a field that every such log has."""
    rows = [("at", where), ("fields", ", ".join(map(str, have)) or "none")]
    return ItemError(
        explain(f"a sample of the log has no {name!r}.", rows, "is this a per-sample log (--log_samples)?")
    )
