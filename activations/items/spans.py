"""From an item's characters to token positions, whatever template stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taxlens.activations.items.chat import render_chat
from taxlens.activations.items.items import Item
from taxlens.activations.items.tokens import adds_special
from taxlens.core.errors import ItemError, ModelLoadError, explain

_MARK = "taxlensmark"  # stands in for the content to find where a template puts it


@dataclass(frozen=True, slots=True)
class SpanMap:
    """Where an item's content is among the tokens of one rendered prompt or text.

    Args:
        content: the item's prompt or text, as far as the template kept it.
        tokens: (token position, first character, character after the last) of every token that holds content;
            characters count from the start of the content.
    """

    content: str
    tokens: tuple[tuple[int, int, int], ...]


def span_map(item: Item, tokenizer: Any, *, template: str = "plain", chat_template: str | None = None) -> SpanMap:
    """Return where an item's content is among the tokens that a model reads.

    Args:
        item: the item; its prompt, or its text.
        tokenizer: the model's (fast) tokenizer.
        template: "plain" or "chat".
        chat_template: template text for "chat".

    Raises:
        ModelLoadError: if the tokenizer cannot say which characters a token holds.
    """
    template = item.template(template)
    content = item.text if item.text is not None else (item.prompt or "")
    if template == "plain":
        text, content, start = content, content.rstrip() if item.text is None else content, 0
        text = content
    elif item.messages:
        text, content = render_chat(tokenizer, item.messages, chat_template=chat_template), item.messages[-1]["content"]
        content = content if content in text else content.strip()
        start = text.rfind(content)
        content = content if start >= 0 else ""
        start = max(start, 0)
    else:
        text = render_chat(tokenizer, content, chat_template=chat_template, reply=item.text is None)
        marked = render_chat(tokenizer, _MARK, chat_template=chat_template, reply=item.text is None)
        start = max(marked.find(_MARK), 0)
        if not text.startswith(content, start):
            content = content.strip()
            content = content if text.startswith(content, start) else ""
    stop = start + len(content)
    tokens = []
    special = adds_special(tokenizer, text, template, item.special_tokens)
    for position, (low, high) in enumerate(_offsets(tokenizer, text, special=special)):
        low, high = max(low, start), min(high, stop)
        if low < high:
            tokens.append((position, low - start, high - start))
    return SpanMap(content=content, tokens=tuple(tokens))


def matched(base: SpanMap, aligned: SpanMap) -> list[tuple[int, int]]:
    """Return (position in base, position in aligned) of the tokens that hold the same characters in both."""
    there = {(low, high): position for position, low, high in aligned.tokens}
    return [(position, there[low, high]) for position, low, high in base.tokens if (low, high) in there]


def coverage(item: Item, base: SpanMap, aligned: SpanMap) -> float:
    """Return the share (0..1) of the content's characters that stand in tokens common to both models.

    White space does not count: templates may trim it, and word-level tokens do not hold it.
    """
    content = item.text if item.text is not None else (item.prompt or "")
    if item.messages and base.content.strip() == item.messages[-1]["content"].strip():
        content = base.content
    if not content.strip():
        return 1.0
    if base.content.strip() != content.strip() or aligned.content.strip() != content.strip():
        return 0.0
    there = {(low, high) for _, low, high in aligned.tokens}
    held = {c for _, low, high in base.tokens if (low, high) in there for c in range(low, high)}
    wanted = {place for place, character in enumerate(base.content) if not character.isspace()}
    return len(held & wanted) / len(wanted)


def label_span(item: Item, name: str, where: SpanMap) -> tuple[int, int]:
    """Return (first token, token after the last) of a label's text within an item's content.

    The label's last occurrence is taken.

    Raises:
        ItemError: if the item has no such label, or its text does not occur.
    """
    text = item.labels.get(name)
    start = where.content.rfind(text) if isinstance(text, str) and text else -1
    if start < 0:
        rows = [("item", repr(item.id)), ("label", f"{name} = {text!r}"), ("content", repr(where.content[:80]))]
        fix = f"give each item a label {name!r} whose text occurs in the prompt."
        raise ItemError(explain("a labelled span is not in the item.", rows, fix))
    held = _inside(where.tokens, start, start + len(str(text)))
    return held[0], held[-1] + 1


def _inside(tokens: Sequence[tuple[int, int, int]], start: int, stop: int) -> list[int]:
    return [position for position, low, high in tokens if low < stop and high > start]


def _offsets(tokenizer: Any, text: str, *, special: bool) -> list[tuple[int, int]]:
    if not getattr(tokenizer, "is_fast", False):
        rows = [("tokenizer", getattr(tokenizer, "name_or_path", tokenizer))]
        fix = "templates: [plain] with positions: last, or a checkpoint with tokenizer.json."
        raise ModelLoadError(explain("this tokenizer cannot say which characters a token holds.", rows, fix))
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    return [(int(low), int(high)) for low, high in found["offset_mapping"]]
