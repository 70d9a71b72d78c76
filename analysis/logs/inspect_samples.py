"""What a sample of an Inspect log was asked: the messages that its solvers made, and the choices that they listed."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from taxlens.activations.items.messages import Message

_FORM = "ANSWER: "


def asked_of(sample: Any) -> tuple[tuple[Message, ...], bool]:
    """The messages that the model was sent before its first answer, and whether the log shows them.

    The first message that the model generated ends them; answers that a prompt shows as examples stay. A log without
    messages has the sample's own input alone.
    """
    asked: list[Message] = []
    for message in sample.messages or ():
        if message.role == "assistant" and (message.source == "generate" or getattr(message, "model", None)):
            break
        asked.append({"role": str(message.role), "content": message.text})
    if asked and asked[-1]["role"] == "assistant" and len(asked) == len(sample.messages):
        asked.pop()  # a log that does not say where messages come from: the last is the answer
    if any(message["role"] == "user" for message in asked):
        return tuple(asked), True
    given = sample.input
    if isinstance(given, str):
        return ({"role": "user", "content": given},), False
    return tuple({"role": str(m.role), "content": m.text} for m in given), False


def targets_of(sample: Any) -> list[str]:
    """The targets of a sample as texts."""
    return [sample.target] if isinstance(sample.target, str) else [str(target) for target in sample.target]


def choices_asked(
    sample: Any, messages: Sequence[Message], targets: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...], str]:
    """(choices as the model may answer them, indices of the right ones, what stands before the letter of an answer).

    Where the messages list the choices under letters, the answers are letters in the form that the messages ask for
    ("ANSWER: A"), in the order in which they are listed; else they are the texts.
    """
    given = [str(choice) for choice in sample.choices or ()]
    letters = [t.strip() for t in targets if len(t.strip()) == 1 and t.strip() in string.ascii_uppercase]
    right = [string.ascii_uppercase.index(letter) for letter in letters]
    if (
        len(given) < 2
        or not right
        or len(right) < len(targets)
        or max(right) >= len(given)
        or len(set(right)) == len(given)
    ):
        return (), (), ""
    text = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    places = _listed(text, given)
    if places is None:
        return tuple(f" {choice}" for choice in given), tuple(dict.fromkeys(right)), ""
    form = _FORM if _FORM in text else ""
    shown = tuple(f" {form}{letter}" for letter in string.ascii_uppercase[: len(given)])
    return shown, tuple(dict.fromkeys(places[n] for n in right)), form


def _listed(text: str, choices: Sequence[str]) -> list[int] | None:
    """At which letter each choice is listed, or None where they are not listed."""
    places = []
    for choice in choices:
        found = re.search(rf"^\(?([A-Z])[).:]\s*{re.escape(choice.strip())}\s*$", text, re.MULTILINE)
        if found is None:
            return None
        places.append(string.ascii_uppercase.index(found[1]))
    return places if sorted(places) == list(range(len(choices))) else None
