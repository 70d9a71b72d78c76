"""Conversations as items hold them: who said what, and the plain text that stands for it where no template is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taxlens.core.errors import ItemError, explain

Message = Mapping[str, str]
"""``{"role": "system", "content": "..."}``; roles are those of chat templates."""

Content = str | Sequence[Message]
"""What a model is asked: a text (one user's message in chat), or a whole conversation."""

ROLES = ("system", "developer", "user", "assistant", "tool")
_EXAMPLE = '"messages": [{"role": "user", "content": "Hello"}]'


def plain_text(messages: Sequence[Message]) -> str:
    """The contents one after the other, parted by blank lines: what a model without a template is asked."""
    return "\n\n".join(message["content"] for message in messages)


def messages_of(given: object, *, where: str) -> tuple[Message, ...]:
    """Checked messages.

    Args:
        given: a list of mappings with ``role`` and ``content``.
        where: for errors.

    Raises:
        ItemError: it is no such list, is empty, or a role is none of `ROLES`.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ItemError(explain("messages must be a list.", [("at", where), ("got", repr(given)[:80])], _EXAMPLE))
    return tuple(_message(message, where) for message in given)


def _message(given: Any, where: str) -> Message:
    right = isinstance(given, Mapping) and set(given) >= {"role", "content"}
    if not right or not isinstance(given["content"], str) or given["role"] not in ROLES:
        rows = [("at", where), ("got", repr(given)[:80]), ("roles", ", ".join(ROLES))]
        raise ItemError(explain("a message has a role and a text.", rows, _EXAMPLE))
    return {"role": given["role"], "content": given["content"]}
