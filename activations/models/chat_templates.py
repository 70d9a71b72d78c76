"""Which of a tokenizer's chat templates is its own."""

from __future__ import annotations

from typing import Any

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
