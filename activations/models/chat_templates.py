"""Which of a tokenizer's chat templates is its own, and what stands in it around a question.

System text, thinking on or off, a fixed date and how the answer begins are all put into the text of the template, so that
every stage asks alike and the template's hash says how.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from typing import Any

from taxlens.activations.items.chat import render_chat
from taxlens.core.errors import ConfigError, explain

DEFAULT = "default"


def default_template(tokenizer: Any) -> tuple[str | None, str]:
    """Return the text of the template that a tokenizer chats in, and a note where there were several to choose from.

    Args:
        tokenizer: a Hugging Face tokenizer, whose `chat_template` is a text, or several by name.

    Returns:
        The template called "default", or the only one; None where there is none, or several without a default.
    """
    own = getattr(tokenizer, "chat_template", None)
    if not own:
        return None, ""
    if isinstance(own, str):
        return own, ""
    names = ", ".join(sorted(own))
    if DEFAULT in own:
        return str(own[DEFAULT]), f"chat template {DEFAULT!r} is used, of {names}" if len(own) > 1 else ""
    if len(own) == 1:
        return str(next(iter(own.values()))), ""
    return None, f"none of the chat templates is called {DEFAULT!r} ({names}): give one as chat_template, by its file"


_CLOCK = re.compile(r"strftime_now\(\s*([\"'])(.*?)\1\s*\)")
_PROBE = "taxlens asks this"


@dataclass(frozen=True, slots=True)
class Asking:
    """How both models are asked in "chat", beyond their templates.

    Args:
        system: system text before each question that has none of its own.
        thinking: whether templates that know `enable_thinking` (or `thinking`) let the model think; None: their default.
        date: the day that templates which write one are to write, as 2024-07-26; blank: today.
        answer_prefix: how each answer begins, after the assistant's turn is opened; end it with a space where the
            answer is to follow one.
    """

    system: str = ""
    thinking: bool | None = None
    date: str = ""
    answer_prefix: str = ""

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return self != Asking()


def asked_with(template: str, asking: Asking) -> str:
    """Return a chat template that asks in this way.

    Example:
        >>> asked_with("{{ messages[0]['content'] }}", Asking()) == "{{ messages[0]['content'] }}"
        True
    """
    before, after = [], ""
    if asking.system:
        text = json.dumps(asking.system, ensure_ascii=False)
        parts = f"({text} if messages[0]['content'] is string else [{{'type': 'text', 'text': {text}}}])"
        before.append(
            "{% if messages[0]['role'] != 'system' %}{% set messages = [{'role': 'system', 'content': " + parts
            + "}] + messages %}{% endif %}"
        )  # fmt: skip
    if asking.thinking is not None:
        value = str(asking.thinking).lower()
        before.append(f"{{% set enable_thinking = {value} %}}{{% set thinking = {value} %}}")
    if asking.date:
        day = _day(asking.date)
        formats = {found[1]: day.strftime(found[1]) for found in _CLOCK.findall(template)}
        table = json.dumps(formats, ensure_ascii=False)
        before.append("{% set date_string = " + json.dumps(day.strftime("%d %b %Y")) + " %}")
        before.append("{% macro strftime_now(format) %}{{ " + table + "[format] }}{% endmacro %}")
    if asking.answer_prefix:
        after = (
            "{% if add_generation_prompt %}{{ "
            + json.dumps(asking.answer_prefix, ensure_ascii=False)
            + " }}{% endif %}"
        )
    return ("".join(before) + "{{ '' }}" if before else "") + template + after


def asking_notes(tokenizer: Any, template: str | None, asking: Asking, *, who: str) -> list[str]:
    """What a reader must know of how a model is asked: settings that its template does not know, a date that moves.

    Args:
        tokenizer: the model's.
        template: its own chat template; None: it has none.
        asking: what is asked for.
        who: "base" or "aligned".

    Raises:
        ConfigError: the template leaves the system text out.
    """
    if template is None:
        return [f"{who} has no chat template: how to ask in chat has no effect"] if asking.given else []
    notes = []
    if asking.thinking is not None and not re.search(r"\b(enable_)?thinking\b", template):
        notes.append(f"the chat template of {who} knows no enable_thinking: it thinks, or not, as it does")
    if _CLOCK.search(template) and not asking.date:
        notes.append(f"the chat template of {who} writes today's date: give asking.date, so that tomorrow's run agrees")
    if asking.system:
        found = render_chat(tokenizer, _PROBE, chat_template=asked_with(template, asking))
        if asking.system.strip() not in found:
            rows = [("model", who), ("system", repr(asking.system[:80])), ("rendered", repr(found[:160]))]
            fix = "chat_template: FILE (one that takes a system text), or put the text into the prompts."
            raise ConfigError(explain("the chat template leaves out the system text.", rows, fix))
    return notes


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(explain("no such day.", [("date", text)], "date: 2024-07-26")) from error
