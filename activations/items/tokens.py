"""Items to token rows, by lm-eval's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxlens.activations.items.chat import render_chat
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.messages import Content, plain_text
from taxlens.core.errors import ItemError, ModelLoadError, explain, one_of
from taxlens.core.vocabularies import TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens that a model reads.

    Args:
        item: index of the item in its suite.
        choice: index of the choice, -1 for a prompt or a text alone.
        ids: the token ids, special tokens included.
        start: index in `ids` of the first token of the choice; `len(ids)` without one.
        kind: "prompt", "choice" or "text".
    """

    item: int
    choice: int
    ids: tuple[int, ...]
    start: int
    kind: str


def encode_suite(
    suite: Suite,
    tokenizer: Tokenizer,
    *,
    template: str = "plain",
    chat_template: str | None = None,
    max_length: int | None = None,
) -> list[Row]:
    """Return one row for each (item, choice), item after item; items without choices have none.

    The arithmetic is lm-eval's `_encode_pair`: white space at the end of the context moves to the choice,
    context and choice are encoded together, and the choice is what follows the context's own length. An empty
    context is the tokenizer's BOS (or EOS) token. An item with contexts has one before each choice. In chat the
    context is the rendered template and the choice loses its leading space; BOS is added where the tokenizer adds
    one and the template writes none (`adds_special`).

    Args:
        suite: the items.
        tokenizer: a Hugging Face tokenizer.
        template: "plain" or "chat".
        chat_template: template text for "chat"; by default the tokenizer's own.
        max_length: most tokens that the model reads; None: the tokenizer's limit, if it has one.

    Returns:
        Rows of kind "choice".

    Raises:
        ItemError: if a choice leaves no token of its own, or a row is too long.
        ModelLoadError: if "chat" is asked of a tokenizer without a template.
    """
    rows = []
    for index, item in enumerate(suite.items):
        if not item.choices:
            continue
        asked = item.template(template)
        contexts: Sequence[Content] = item.contexts or (item.content(asked),)
        rendered = [_context(content, tokenizer, asked, chat_template) for content in contexts]
        for number, choice in enumerate(item.choices):
            ids, start = encode_pair(
                tokenizer, rendered[number % len(rendered)], choice, template=asked, special_tokens=item.special_tokens
            )
            row = Row(item=index, choice=number, ids=tuple(ids), start=start, kind="choice")
            _check_row(row, item, suite, tokenizer, max_length)
            rows.append(row)
    return rows


def encode_prompts(
    suite: Suite,
    tokenizer: Tokenizer,
    *,
    template: str = "plain",
    chat_template: str | None = None,
    max_length: int | None = None,
) -> list[Row]:
    """Return one row for each item that has a prompt or a text, without any choice.

    In "plain" a prompt's row is exactly the context that its choices continue (white space at its end belongs
    to the choice). In "chat" it is the whole rendered template. Items with an empty prompt have no such row.

    Args and errors as `encode_suite`.

    Returns:
        Rows of kind "prompt" or "text", with `start == len(ids)`.
    """
    rows = []
    for index, item in enumerate(suite.items):
        if item.text is None and not (item.prompt or "").strip():
            continue
        asked = item.template(template)
        context = _context(item.content(asked), tokenizer, asked, chat_template, reply=item.text is None)
        if asked == "plain" and item.text is None:
            context = context.rstrip()
        ids = tuple(_encode(tokenizer, context, special=adds_special(tokenizer, context, asked, item.special_tokens)))
        kind = "prompt" if item.text is None else "text"
        row = Row(item=index, choice=-1, ids=ids, start=len(ids), kind=kind)
        _check_row(row, item, suite, tokenizer, max_length)
        rows.append(row)
    return rows


def encode_pair(
    tokenizer: Tokenizer, context: str, choice: str, *, template: str, special_tokens: bool | None = None
) -> tuple[list[int], int]:
    """Return (token ids of context + choice, index of the choice's first token), as lm-eval counts them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        context: what stands before the choice; in "chat" the rendered template.
        choice: the continuation; in "chat" its leading white space is dropped.
        template: "plain" or "chat".
        special_tokens: see `adds_special`.
    """
    if template != "plain":
        choice = choice.lstrip()
    kept = context.rstrip()
    choice, context = context[len(kept) :] + choice, kept
    if not context:
        ids = _encode(tokenizer, choice, special=False)
        prefix = prefix_token(tokenizer)
        return (ids, 1) if ids and ids[0] == prefix else ([prefix, *ids], 1)
    special = adds_special(tokenizer, context, template, special_tokens)
    whole = _encode(tokenizer, context + choice, special=special)
    return whole, len(_encode(tokenizer, context, special=special))


def prompt_ids(
    tokenizer: Tokenizer, prompt: str | Item, *, template: str, chat_template: str | None = None
) -> list[int]:
    """Return the token ids that stand before an answer, special tokens included.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: a user's request (chat) or a text to continue (plain); or an item, whose conversation, rendered template
            and special tokens are then followed.
        template: "plain" or "chat".
        chat_template: template text for "chat"; by default the tokenizer's own.
    """
    text, asked, special_tokens = prompt_text(tokenizer, prompt, template=template, chat_template=chat_template)
    return _encode(tokenizer, text, special=adds_special(tokenizer, text, asked, special_tokens))


def prompt_text(
    tokenizer: Tokenizer, prompt: str | Item, *, template: str, chat_template: str | None = None
) -> tuple[str, str, bool | None]:
    """Return (text before an answer, the template that it is in, the item's word on special tokens).

    Args as `prompt_ids`.
    """
    item = prompt if isinstance(prompt, Item) else Item("", "", prompt=prompt)
    asked = item.template(template)
    return _context(item.content(asked), tokenizer, asked, chat_template), asked, item.special_tokens


def adds_special(tokenizer: Tokenizer, text: str, template: str, asked: bool | None = None) -> bool:
    """Whether the tokenizer's special tokens are added before a text.

    As lm-eval (0.4.10 and later) does it: not where the text begins with BOS already, so that no prompt has two. In
    "chat" that is so too: a template that writes no BOS gets the tokenizer's, if it adds one.

    Args:
        tokenizer: a Hugging Face tokenizer.
        text: what is encoded; in "chat" the rendered template.
        template: "plain" or "chat".
        asked: an item's own word, which counts before all else; None where it has none.
    """
    if asked is not None:
        return asked
    bos = getattr(tokenizer, "bos_token", None)
    if not bos:
        return template == "plain"  # whatever else a tokenizer adds, its chat template writes itself
    return not text.startswith(str(bos))


def prefix_token(tokenizer: Tokenizer) -> int:
    """Return the token that stands for an empty context: BOS, or EOS where there is no BOS."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    rows = [("tokenizer", tokenizer.name_or_path)]
    fix = "give the items a prompt, or the tokenizer a BOS token."
    raise ModelLoadError(explain("an empty prompt needs a BOS or EOS token.", rows, fix))


def pad_token(tokenizer: Tokenizer) -> int:
    """Return an id to pad with (the tokenizer's pad, EOS or BOS, else 0); masked, so it changes nothing."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    return 0


def _context(
    content: Content, tokenizer: Tokenizer, template: str, chat_template: str | None, *, reply: bool = True
) -> str:
    one_of(template, TEMPLATES, what="template")
    if template == "plain":
        return content if isinstance(content, str) else plain_text(content)
    return render_chat(tokenizer, content, chat_template=chat_template, reply=reply)


def _encode(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    try:
        ids: list[int] = [int(i) for i in tokenizer.encode(text, add_special_tokens=special)]  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError) as error:
        place = next((n for n, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
        if place is None:
            raise
        rows = [("text", ascii(text[max(0, place - 40) : place + 10])), ("character", place)]
        title = "a text holds half a character (a lone surrogate)."
        raise ItemError(explain(title, rows, "repair the text.")) from error
    if special and ids and ids[-1] == tokenizer.eos_token_id and not _ends_in_eos(tokenizer, text):
        ids = ids[:-1]  # a tokenizer that closes every text with EOS: nothing could continue it
    return ids


def _ends_in_eos(tokenizer: Tokenizer, text: str) -> bool:
    bare: Any = tokenizer.encode(text, add_special_tokens=False)
    return bool(bare) and bare[-1] == tokenizer.eos_token_id


def _check_row(row: Row, item: Item, suite: Suite, tokenizer: Tokenizer, max_length: int | None) -> None:
    where: list[tuple[str, object]] = [("suite", suite.name), ("item", repr(item.id))]
    if row.kind == "choice":
        where.append(("choice", repr(item.choices[row.choice])))
        if row.start >= len(row.ids):
            fix = "start the choice with a space, or move the prompt's last word into the choice."
            raise ItemError(explain("a choice has no token of its own.", where, fix))
    if not row.ids:
        raise ItemError(explain("an item has no tokens.", where, "give it a text."))
    limit = max_length if max_length is not None else int(getattr(tokenizer, "model_max_length", 0) or 0)
    if 0 < limit < len(row.ids):
        where.append(("tokens", f"{len(row.ids)}, the model reads {limit}"))
        raise ItemError(explain("an item is longer than the context.", where, "shorten or drop the item."))
