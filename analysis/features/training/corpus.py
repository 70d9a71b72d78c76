"""Texts to train a dictionary on: plain files, JSON lines or a saved `datasets` folder, read as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxlens.activations.items.chat import render_messages
from taxlens.activations.items.tokens import Row
from taxlens.core.errors import ConfigError, explain
from taxlens.core.json_text import JsonError, parse_json

Document = str | list[dict[str, str]]
"""A text, or the messages of a chat."""

HELD_OUT = 20
"""One window of text in so many is kept from training, to measure on."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files of texts.

    Args:
        files: `.txt` (blank lines part documents), `.jsonl` (a `text` or `messages` a line), or folders that
            `datasets` saved (needs the package).

    Example:
        >>> Corpus(("notes.txt",)).documents()                                          # doctest: +SKIP
    """

    files: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = [name for name in self.files if not Path(name).exists()]
        if missing or not self.files:
            got = ", ".join(missing) or "no file"
            raise ConfigError(explain("the corpus is missing.", [("got", got)], "a .txt or .jsonl file of texts."))

    def documents(self) -> Iterator[Document]:
        """Every document, file after file, in the files' order.

        Raises:
            ConfigError: a line without text, or an ending that is not read.
        """
        for name in self.files:
            path = Path(name)
            if path.is_dir():
                yield from _saved_dataset(path)
            elif path.suffix == ".jsonl":
                yield from _json_lines(path)
            elif path.suffix in (".txt", ".md"):
                yield from _paragraphs(path)
            else:
                rows = [("file", name), ("read", ".txt, .md, .jsonl, a folder saved by datasets")]
                raise ConfigError(explain("a corpus file of an unknown kind.", rows))

    def windows(self, tokenizer: Any, *, context: int, chat_template: str | None = None) -> Iterator[Row]:
        """Token rows of at most `context` tokens, documents cut where they are longer; `item` counts the windows.

        Args:
            tokenizer: a Hugging Face tokenizer.
            context: most tokens of a window; documents of fewer than four tokens are passed over.
            chat_template: text of the template for chats; by default the tokenizer's own.

        Raises:
            ConfigError: a chat, and no template.
        """
        number = 0
        for document in self.documents():
            for ids in _cut(_encoded(document, tokenizer, chat_template), context):
                yield Row(number, -1, tuple(ids), len(ids), "text")
                number += 1


def held_out(row: Row) -> bool:
    """Whether a window is kept from training."""
    return row.item % HELD_OUT == HELD_OUT - 1


def _encoded(document: Document, tokenizer: Any, chat_template: str | None) -> list[int]:
    if isinstance(document, str):
        return list(tokenizer.encode(document))
    if chat_template is None and not tokenizer.chat_template:
        fix = "leave chats out of the corpus, or give a chat_template."
        raise ConfigError(explain("the corpus holds chats and the tokenizer has no chat template.", (), fix))
    text = render_messages(tokenizer, document, chat_template=chat_template, reply=False)
    return list(tokenizer.encode(text, add_special_tokens=False))


def _cut(ids: Sequence[int], context: int) -> Iterator[list[int]]:
    for start in range(0, len(ids), context):
        piece = list(ids[start : start + context])
        if len(piece) >= 4:
            yield piece


def _paragraphs(path: Path) -> Iterator[str]:
    held: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                held.append(line)
            elif held:
                yield "".join(held).strip()
                held = []
    if held:
        yield "".join(held).strip()


def _json_lines(path: Path) -> Iterator[Document]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = parse_json(line.decode("utf-8-sig"))
            except (JsonError, UnicodeDecodeError) as error:
                rows = [("file", f"{path}:{number}"), ("reason", error)]
                raise ConfigError(explain("a line of the corpus is not JSON.", rows)) from error
            yield _document(value, f"{path}:{number}")


def _document(value: Any, where: str) -> Document:
    if isinstance(value, dict) and isinstance(value.get("messages"), list) and value["messages"]:
        return value["messages"]
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return value["text"]
    rows = [("at", where), ("has", ", ".join(value) if isinstance(value, dict) else type(value).__name__)]
    raise ConfigError(explain("a document of the corpus has neither text nor messages.", rows, '{"text": "..."}'))


def _saved_dataset(path: Path) -> Iterator[Document]:
    try:
        import datasets
    except ImportError:
        rows = [("folder", path)]
        fix = "pip install datasets, or write the texts as JSON lines."
        raise ConfigError(explain("a saved data set is read by the package datasets.", rows, fix)) from None
    for number, value in enumerate(datasets.load_from_disk(str(path))):
        yield _document(value, f"{path} row {number}")
