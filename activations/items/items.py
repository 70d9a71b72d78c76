"""Benchmark questions and suites of them: read from JSON lines or CSV, checked to the last field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.activations.items.item_tables import SEPARATORS, table_items
from taxlens.core.artifacts import atomic_path, sha256_text
from taxlens.core.errors import ItemError, explain, one_of

KINDS = ("capability", "benefit")
FIELDS = ("id", "group", "prompt", "text", "contexts", "choices", "gold", "labels")
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
    """

    id: str
    group: str
    prompt: str | None = None
    text: str | None = None
    choices: tuple[str, ...] = ()
    gold: int | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()

    def context(self, choice: int) -> str:
        """What stands before a choice: its own context, or the item's prompt."""
        return self.contexts[choice] if self.contexts else (self.prompt or "")

    def to_json(self) -> dict[str, Any]:
        """Return the item as the JSON object that `read_suite` reads, without empty fields."""
        out: dict[str, Any] = {"id": self.id}
        if self.prompt is not None:
            out["prompt"] = self.prompt
        if self.text is not None:
            out["text"] = self.text
        if self.contexts:
            out["contexts"] = list(self.contexts)
        if self.choices:
            out |= {"choices": list(self.choices), "gold": self.gold}
        return out | {"group": self.group} | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True, slots=True, repr=False)
class Suite:
    """Items that measure one capability, or (`kind="benefit"`) what alignment was for.

    Args:
        name: how tables call it.
        items: the items, ids unique, at least one.
        kind: "capability" or "benefit".
        source: where the items were read from.
    """

    name: str
    items: tuple[Item, ...]
    kind: str = "capability"
    source: str = ""

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, what="suite kind", error=ItemError)
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
        return Suite(name=self.name, items=items, kind=self.kind, source=self.source)


def _short(text: str, most: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def read_suite(path: Path | str, *, name: str | None = None, kind: str = "capability") -> Suite:
    """Read a suite from a JSON-lines file (UTF-8, one item a line; blank lines are passed over), or from CSV.

    A file that ends in ``.csv`` or ``.tsv`` has a header and one item a row (`taxlens.activations.items.item_tables`).

    Args:
        path: the file.
        name: the suite's name; by default the file's name without its ending.
        kind: "capability" or "benefit".

    Returns:
        The suite; every item has passed every check.

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
    path = Path(path)
    text = suite_text(path)
    if path.suffix.lower() in SEPARATORS:
        items = [item_of(raw, where=where) for where, raw in table_items(text, path)]
    else:
        items = [parse_item(line, where=where) for where, line in numbered_lines(text, path)]
    return Suite(name=name or path.stem, items=tuple(items), kind=kind, source=str(path))


def suite_text(path: Path) -> str:
    """The text of a suite's file.

    Raises:
        ItemError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    if not path.is_file():
        raise ItemError(explain("suite file not found.", [("file", path)], "check the path of the suite."))
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rows = [("file", path), ("byte", error.start)]
        raise ItemError(explain("suite file is not UTF-8.", rows, "save it as UTF-8.")) from error
    except OSError as error:
        rows = [("file", path), ("system", error.strerror)]
        raise ItemError(explain("suite file cannot be read.", rows, "check its permissions.")) from error


def numbered_lines(text: str, path: Path) -> list[tuple[str, str]]:
    """("file:line", line) of every line that is not blank."""
    return [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def write_suite(suite: Suite, path: Path | str) -> Path:
    """Write a suite as JSON lines that `read_suite` reads back to an equal suite; returns the path."""
    with atomic_path(path) as temporary:
        lines = [json.dumps(item.to_json(), ensure_ascii=False) for item in suite.items]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def parse_item(line: str, *, where: str) -> Item:
    """Return the item that one JSON line holds.

    Args:
        line: a JSON object.
        where: file and line, for errors.

    Raises:
        ItemError: if any field is missing, of the wrong type or contradicts another.
    """
    return item_of(json_object(line, where=where), where=where)


def json_object(line: str, *, where: str) -> dict[str, Any]:
    """The JSON object that a line holds.

    Raises:
        ItemError: it holds none.
    """
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        rows = [("line", where), ("column", error.colno), ("reason", error.msg)]
        raise ItemError(explain("not a JSON line.", rows, "write one JSON object a line.")) from error
    if not isinstance(raw, dict):
        rows = [("line", where), ("got", type(raw).__name__)]
        raise ItemError(explain("an item is not a JSON object.", rows, '{"id": ..., "group": ..., ...}'))
    return raw


def item_of(raw: Mapping[str, Any], *, where: str) -> Item:
    """Return the item with the given fields, every one checked.

    Args:
        raw: field -> value, as a JSON line has them.
        where: file and line, for errors.

    Raises:
        ItemError: if any field is missing, of the wrong type or contradicts another.
    """
    for key in raw:
        one_of(key, FIELDS, what=f"field at {where}:", error=ItemError)
    item_id = _text(raw, "id", where)
    here = f"{where} (item {item_id!r})"
    item = Item(
        id=item_id,
        group=_text(raw, "group", here),
        prompt=_text(raw, "prompt", here, empty=True) if raw.get("prompt") is not None else None,
        text=_text(raw, "text", here) if raw.get("text") is not None else None,
        choices=_choices(raw, here),
        gold=raw.get("gold"),
        labels=_labels(raw, here),
        contexts=_contexts(raw, here),
    )
    _check_whole(item, here)
    return item


def _fail(title: str, where: str, got: object, fix: str) -> ItemError:
    return ItemError(explain(title, [("at", where), ("got", got)], fix))


def _text(raw: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    value = raw.get(key)
    if value is None:
        raise _fail(f"an item has no {key}.", where, f"fields {', '.join(raw)}", f'add "{key}".')
    if not isinstance(value, str) or (not empty and not value.strip()):
        kind = "any text" if empty else "a text that is not empty"
        raise _fail(f"{key} must be {kind}.", where, repr(value), f'"{key}": "..."')
    _check_unicode(value, key, where)
    return value


def _check_unicode(value: str, key: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        title = f"{key} holds half a character (a lone surrogate)."
        raise _fail(title, where, ascii(value), "repair the text.") from error
    if "\0" in value:
        raise _fail(f"{key} holds a NUL character.", where, ascii(value), "remove it.")


def _choices(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    choices = raw.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
        raise _fail("choices must be a list of texts.", where, repr(choices), '"choices": [" one", " two"]')
    if len(choices) < 2:
        raise _fail("an item needs two choices or more.", where, len(choices), "add a wrong choice.")
    for choice in choices:
        if not choice.strip():
            raise _fail("a choice is empty.", where, repr(choice), "give each choice a text.")
        _check_unicode(choice, "a choice", where)
    return tuple(choices)


def _contexts(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    contexts = raw.get("contexts")
    if contexts is None:
        return ()
    fix = '"contexts": ["The cup", "The box"], "choices": [" fell.", " fell."]'
    if not isinstance(contexts, list) or not all(isinstance(c, str) and c.strip() for c in contexts):
        raise _fail("contexts must be a list of texts that are not empty.", where, repr(contexts), fix)
    choices = raw.get("choices")
    if not isinstance(choices, list) or len(choices) != len(contexts):
        count = len(choices) if isinstance(choices, list) else "no"
        raise _fail("an item has one context a choice.", where, f"{len(contexts)} contexts, {count} choices", fix)
    for context in contexts:
        _check_unicode(context, "a context", where)
    return tuple(contexts)


def _labels(raw: Mapping[str, Any], where: str) -> dict[str, Label]:
    labels = raw.get("labels")
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise _fail("labels must be an object.", where, repr(labels), '"labels": {"truth": 1}')
    for name, value in labels.items():
        if not name or name == "correct":
            raise _fail("this label's name is taken.", where, repr(name), "rename it ('correct' is automatic).")
        if not isinstance(value, str | int | float | bool | None):
            raise _fail(f"label {name!r} must be text or a number.", where, repr(value), "use one plain value.")
        if isinstance(value, float) and not math.isfinite(value):
            raise _fail(f"label {name!r} is not finite.", where, value, "leave the label out, or give null.")
    return dict(labels)


def _check_whole(item: Item, where: str) -> None:
    given = [item.prompt is not None, item.text is not None, bool(item.contexts)]
    if sum(given) != 1:
        got = "neither" if not any(given) else "both" if not item.contexts else "contexts and another"
        fix = "keep one of the two (contexts stand in the prompt's place)."
        raise _fail("an item has either a prompt or a text.", where, got, fix)
    if item.text is not None and item.choices:
        raise _fail("a text item has no choices.", where, "choices", 'write "prompt" instead of "text".')
    if not item.choices:
        if item.gold is not None:
            raise _fail("gold is given without choices.", where, item.gold, "add choices.")
        if item.prompt is not None and not item.prompt.strip():
            raise _fail("an item without choices has an empty prompt.", where, repr(item.prompt), "add a prompt.")
        return
    if not isinstance(item.gold, int) or isinstance(item.gold, bool):
        raise _fail("gold must be the index of a choice.", where, repr(item.gold), '"gold": 0')
    if not 0 <= item.gold < len(item.choices):
        fix = f"use 0 to {len(item.choices) - 1}."
        raise _fail("gold is out of range.", where, f"{item.gold} of {len(item.choices)} choices", fix)
