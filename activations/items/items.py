"""Benchmark questions and suites of them: read from JSON lines or CSV, checked to the last field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.activations.items.messages import Content, Message, plain_text
from taxlens.core.artifacts import atomic_path, sha256_text
from taxlens.core.errors import ItemError, explain, one_of
from taxlens.core.vocabularies import SUITE_KINDS

FIELDS = (
    "id", "group", "prompt", "text", "contexts", "choices", "gold", "labels", "messages", "rendered", "special_tokens",
    "answers", "match", "instructions",
)  # fmt: skip
Label = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Item:
    """One benchmark question, or one text that is only captured and probed.

    Args:
        id: unique within its suite.
        group: what the item shares with others (template, subject, document): the unit of resampling.
        prompt: text before the choices; may be empty when there are choices (a minimal pair).
        text: a whole text, instead of a prompt.
        choices: continuations of the prompt, none or at least two, with their leading space.
        gold: index of the right choice; None without choices.
        labels: name -> value, what probes read from the item's own row.
        contexts: instead of a prompt, one context a choice (a gap filled in different ways, as in Winogrande);
            the choices then may be equal, and there is no prompt to answer or to capture.
        also_right: indices of further right choices beside `gold` (``"gold": [0, 2]`` in a file).
        messages: a whole conversation (system text, earlier turns) instead of a prompt; "chat" renders it with the
            model's template, "plain" reads `prompt`, which then is its texts in a row.
        rendered: the prompt already holds its chat template, as a log of chat has it: "chat" adds none.
        special_tokens: whether BOS (or what else the tokenizer adds) stands before the prompt: None, as the tokenizer
            does it, but never a second BOS where the text begins with one; True or False, whatever the text.
        answers: texts that count as right where the answer is generated.
        match: how a generated answer is compared with them (`taxlens.analysis.answers.matching`); blank: by its start.
        instructions: what a generated answer must keep to, each ``{"id": "length_constraints:number_words", ...}`` with the
            arguments of that instruction (`taxlens.analysis.answers.following`), as in IFEval.
    """

    id: str
    group: str
    prompt: str | None = None
    text: str | None = None
    choices: tuple[str, ...] = ()
    gold: int | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    also_right: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    rendered: bool = False
    special_tokens: bool | None = None
    answers: tuple[str, ...] = ()
    match: str = ""
    instructions: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.messages and self.prompt is None:
            object.__setattr__(self, "prompt", plain_text(self.messages))

    @property
    def right(self) -> tuple[int, ...]:
        """Indices of all right choices, `gold` first; empty without choices."""
        return () if self.gold is None else (self.gold, *self.also_right)

    def template(self, asked: str) -> str:
        """The template that this item is read in where `asked` is asked for: "plain" where it is rendered already."""
        return "plain" if self.rendered else asked

    def content(self, template: str) -> Content:
        """What is asked in a template: the conversation or the prompt (or the text)."""
        if template == "chat" and self.messages and not self.rendered:
            return self.messages
        return self.text if self.text is not None else (self.prompt or "")

    def context(self, choice: int) -> str:
        """What stands before a choice: its own context, or the item's prompt."""
        return self.contexts[choice] if self.contexts else (self.prompt or "")

    def to_json(self) -> dict[str, Any]:
        """Return the item as the JSON object that `read_suite` reads, without empty fields."""
        out: dict[str, Any] = {"id": self.id}
        if self.messages:
            out["messages"] = [dict(message) for message in self.messages]
        if self.prompt is not None and not (self.messages and self.prompt == plain_text(self.messages)):
            out["prompt"] = self.prompt
        if self.text is not None:
            out["text"] = self.text
        if self.contexts:
            out["contexts"] = list(self.contexts)
        if self.choices:
            out |= {"choices": list(self.choices), "gold": list(self.right) if self.also_right else self.gold}
        if self.rendered:
            out["rendered"] = True
        if self.special_tokens is not None:
            out["special_tokens"] = self.special_tokens
        if self.answers:
            out["answers"] = list(self.answers)
        if self.match:
            out["match"] = self.match
        if self.instructions:
            out["instructions"] = [dict(one) for one in self.instructions]
        return out | {"group": self.group} | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True, slots=True, repr=False)
class Suite:
    """Items that measure one capability, or (`kind="benefit"`) what alignment was for.

    Args:
        name: how tables call it.
        items: the items, ids unique, at least one.
        kind: "capability" or "benefit".
        source: where the items were read from.
        left_out: rows of the source that were skipped on request.
    """

    name: str
    items: tuple[Item, ...]
    kind: str = "capability"
    source: str = ""
    left_out: int = 0

    def __post_init__(self) -> None:
        one_of(self.kind, SUITE_KINDS, what="suite kind", error=ItemError)
        where = self.source or self.name
        if not self.items:
            raise ItemError(explain("a suite has no items.", [("suite", where)], "give at least one item."))
        seen: dict[str, int] = {}
        for position, item in enumerate(self.items):
            if item.id in seen:
                rows = [("suite", where), ("id", repr(item.id)), ("items", f"{seen[item.id]} and {position}")]
                raise ItemError(explain("two items have one id.", rows, "make ids unique within the suite."))
            seen[item.id] = position

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        choices = sorted({len(item.choices) for item in self.items})
        asked = "texts" if choices == [0] else f"{'-'.join(map(str, dict.fromkeys((choices[0], choices[-1]))))} choices"
        return f"Suite({self.name!r}, {len(self)} items in {len(set(self.groups))} groups, {asked}, {self.kind})"

    def _repr_html_(self) -> str:
        shown = "".join(
            f"<tr><td>{escape(item.id)}</td><td>{escape(item.group)}</td><td>{escape(_short(item.text or item.context(0)))}"
            f"</td><td>{escape(_short(item.choices[item.gold]) if item.choices and item.gold is not None else '')}</td></tr>"
            for item in self.items[:5]
        )
        more = f"<p>{len(self) - 5} more items: .items</p>" if len(self) > 5 else ""
        head = "<tr><th>id</th><th>group</th><th>prompt</th><th>right answer</th></tr>"
        return f"<p><code>{escape(repr(self))}</code></p><table>{head}{shown}</table>{more}"

    @property
    def groups(self) -> np.ndarray:
        """Each item's group, an array of text [n items]."""
        return np.array([item.group for item in self.items], dtype=object)

    @property
    def sha256(self) -> str:
        """SHA-256 of the items in canonical JSON: equal for equal items, whatever the file looked like."""
        lines = (json.dumps(item.to_json(), sort_keys=True, ensure_ascii=False) for item in self.items)
        return sha256_text("\n".join(lines))

    def subset(self, indices: Iterable[int]) -> Suite:
        """Return the suite of the items at `indices`, in that order."""
        items = tuple(self.items[int(i)] for i in indices)
        return Suite(name=self.name, items=items, kind=self.kind, source=self.source, left_out=self.left_out)


def _short(text: str, most: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def read_suite(
    path: Path | str, *, name: str | None = None, kind: str = "capability", skip: Sequence[str] = ()
) -> Suite:
    """Read a suite from a file: JSON lines or an array, CSV or TSV, parquet, a saved dataset (`item_files`).

    Args:
        path: the file, UTF-8 where it is text; ``.gz`` is unpacked.
        name: the suite's name; by default the file's name without its ending.
        kind: "capability" or "benefit".
        skip: ("equal_choices",) leaves items with two equal choices out, and counts them.

    Returns:
        The suite; every item has passed every check. Fields that no item has become labels.

    Raises:
        ItemError: naming file, line, field and remedy, for the first item that cannot be used.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "facts.jsonl"
        >>> line = '{"id": "1", "group": "a", "prompt": "1 + 1 =", "choices": [" 2", " 6"], "gold": 0}'
        >>> _ = path.write_text(line, encoding="utf-8")
        >>> read_suite(path).items[0].choices
        (' 2', ' 6')
    """
    from taxlens.activations.items.gold import has_equal_choices
    from taxlens.activations.items.item_checks import item_of
    from taxlens.activations.items.item_files import file_rows, is_table
    from taxlens.activations.items.item_tables import table_fields

    for what in skip:
        one_of(what, ("equal_choices",), what="kind of item to skip", error=ItemError)
    path, table = Path(path), is_table(path)
    items, left = [], 0
    for number, (where, row) in enumerate(file_rows(path)):
        raw = table_fields(row, where) if table else row
        if skip and has_equal_choices(raw.get("choices"), raw.get("contexts")):
            left += 1
            continue
        items.append(item_of(raw, where=where, number=number))
    named = name or Path(path.name.removesuffix(".gz")).stem
    return Suite(name=named, items=tuple(items), kind=kind, source=str(path), left_out=left)


def write_suite(suite: Suite, path: Path | str) -> Path:
    """Write a suite as JSON lines that `read_suite` reads back to an equal suite; returns the path."""
    with atomic_path(path) as temporary:
        lines = [json.dumps(item.to_json(), ensure_ascii=False) for item in suite.items]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)
