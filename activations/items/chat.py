"""A prompt as a message in a chat template: rendered, and checked to be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from taxlens.activations.items.template_limits import TemplateLimitError, bounded
from taxlens.core.errors import ModelLoadError, explain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Message = Mapping[str, Any]
"""{"role": "system", "user" or "assistant", "content": text}."""


MOST_CHARACTERS = 1 << 18
"""Most characters that a template may add to the messages."""
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError)


def render_chat(
    tokenizer: Tokenizer, content: str | Sequence[Message], *, chat_template: str | None = None, reply: bool = True
) -> str:
    """Return `content` as the user's message in the chat template, ready for the answer.

    A template that takes a message's content as a list of parts gets one; what is rendered is checked to hold every
    message.

    Args:
        tokenizer: a Hugging Face tokenizer.
        content: the message, or several messages.
        chat_template: template text; by default the tokenizer's own.
        reply: open the assistant's turn after it.

    Raises:
        ModelLoadError: if there is no template, if it refuses the messages, or if it drops one.
    """
    template = chat_template if chat_template is not None else tokenizer.chat_template
    if not template:
        rows = [("tokenizer", tokenizer.name_or_path)]
        fix = "templates: [plain], or chat_template: aligned, or a template file."
        raise ModelLoadError(explain("the tokenizer has no chat template.", rows, fix))
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else [dict(m) for m in content]
    try:
        found = _rendered(tokenizer, messages, chat_template, reply)
        if _holds(found, messages):
            return found
        error: Exception | None = None
    except TemplateLimitError as raised:
        raise ModelLoadError(_refusal(tokenizer, messages, "", raised)) from raised
    except _TEMPLATE_ERRORS as raised:
        found, error = "", raised
    parts = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        in_parts = _rendered(tokenizer, parts, chat_template, reply)
    except (TemplateLimitError, *_TEMPLATE_ERRORS) as raised:
        in_parts, error = "", error or raised
    if _holds(in_parts, messages) and "'type': 'text'" not in in_parts:
        return in_parts
    raise ModelLoadError(_refusal(tokenizer, messages, found, error))


def render_messages(
    tokenizer: Tokenizer, messages: Sequence[Message], *, chat_template: str | None = None, reply: bool = True
) -> str:
    """Return messages in a chat template as it renders them, within the limits of time, memory and length.

    Args:
        tokenizer: a Hugging Face tokenizer.
        messages: what is said.
        chat_template: template text; by default the tokenizer's own.
        reply: open the assistant's turn after them.

    Raises:
        TemplateLimitError: it takes too long, too much memory, or makes a text out of all proportion.
        jinja2.TemplateError: it is no template, or refuses the messages.
    """
    options = {"tokenize": False, "add_generation_prompt": reply, "chat_template": chat_template}
    with bounded():
        found = str(tokenizer.apply_chat_template(list(messages), **options))
    most = MOST_CHARACTERS + 8 * sum(len(str(message.get("content"))) for message in messages)
    if len(found) > most:
        raise TemplateLimitError(f"it makes {len(found)} characters, at most {most} are read")
    return found


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, Any]], template: str | None, reply: bool) -> str:
    return render_messages(tokenizer, messages, chat_template=template, reply=reply)


def _holds(rendered: str, messages: Sequence[Message]) -> bool:
    """Whether every message but the assistant's own stands in the text, white space at its ends aside."""
    return all(str(m["content"]).strip() in rendered for m in _asked(messages))


def _asked(messages: Sequence[Message]) -> list[Message]:
    """Messages that must be there; templates may cut the thinking out of an assistant's earlier turns."""
    return [m for m in messages if m["role"] != "assistant"]


def _refusal(tokenizer: Tokenizer, messages: Sequence[Message], found: str, error: Exception | None) -> str:
    rows: list[tuple[str, object]] = [("tokenizer", tokenizer.name_or_path)]
    fix = "chat_template: FILE (a template that takes it), or templates: [plain]."
    if error is not None:
        rows.append(("template says", (str(error).strip().splitlines() or [type(error).__name__])[0][:200]))
        return explain("the chat template refuses the messages.", rows, fix)
    lost = next(str(m["content"]) for m in _asked(messages) if str(m["content"]).strip() not in found)
    rows += [("message", repr(lost[:80])), ("rendered", repr(found[:160]))]
    return explain("the chat template leaves out what is asked.", rows, fix)
