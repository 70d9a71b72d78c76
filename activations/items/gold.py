"""Which choice an answer names: by index, letter, label or text, however it is dressed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite

_DRESSED = re.compile(
    r"^\s*(?:(?:the )?(?:correct |right )?(?:answer|option|choice)(?: is)?\s*[:=]?\s*)?[\s(\[{\"'*<]*([A-Za-z])[\s)\]}\"'*>.:,;]*$",
    re.IGNORECASE,
)


def choice_named(value: Any, choices: Sequence[str], names: Sequence[str] = (), *, first: int = 0) -> int | None:
    """The index of the choice that a value names, or None where it names none or more than one.

    In this order: a label of the row (``names``), a number (counted from ``first``), the text of one choice, a letter in
    any dress (``b``, ``(B)``, ``B.``, ``Answer: B``), the text without regard to case. A list of one value is that value;
    true and false are 1 and 0 where there are two choices.

    Args:
        value: what the row says.
        choices: texts, in order.
        names: labels of the choices where the row has them.
        first: number of the first choice.

    Example:
        >>> [choice_named(v, ["fire", "ice"]) for v in (1, "b", "(B)", "Ice", "water")]
        [1, 1, 1, 1, None]
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return choice_named(value[0], choices, names, first=first) if len(value) == 1 else None
    if isinstance(value, bool):
        return int(value) if len(choices) == 2 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    said = str(value).strip()
    if said in names:
        return list(names).index(said)
    if re.fullmatch(r"[0-9]{1,15}(?:\.0{1,15})?", said):
        index = int(float(said)) - first
        if 0 <= index < len(choices):
            return index
    texts = [choice.strip() for choice in choices]
    if texts.count(said) == 1:
        return texts.index(said)
    dressed = _DRESSED.match(said)
    if dressed and ord(dressed[1].upper()) - ord("A") < len(choices):
        return ord(dressed[1].upper()) - ord("A")
    folded = [text.casefold() for text in texts]
    return folded.index(said.casefold()) if folded.count(said.casefold()) == 1 else None


def fits_twice(value: Any, choices: Sequence[str], *, first: int = 0) -> bool:
    """Whether a text is both a choice's number and another choice's text."""
    said = str(value).strip()
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,15}", said) or not 0 <= int(said) - first < len(choices):
        return False
    texts = [choice.strip() for choice in choices]
    return texts.count(said) == 1 and texts.index(said) != int(said) - first


def has_several_right(suite: Suite) -> bool:
    """Whether an item of a suite has several right choices."""
    return any(item.also_right for item in suite.items)


def check_one_right(suite: Suite) -> None:
    """Refuse a suite with several right choices, for whatever reads one right choice against the others.

    Raises:
        UsageError: naming the suite and how many items have several.
    """
    several = sum(bool(item.also_right) for item in suite.items)
    if several:
        rows = [("suite", suite.name), ("items", f"{several} of {len(suite)}")]
        fix = "attribute: false for this suite, or keep one right choice an item."
        raise UsageError(explain("items with several right choices are measured, and not attributed.", rows, fix))


def has_equal_choices(choices: Any, contexts: Any = None) -> bool:
    """Whether two choices are one text after one context, white space and Unicode form aside; False for what is no list."""
    if not isinstance(choices, list | tuple):
        return False
    before = contexts if isinstance(contexts, list | tuple) and len(contexts) == len(choices) else ("",) * len(choices)
    seen = [
        unicodedata.normalize("NFC", f"{context}\0{str(choice).strip()}") for context, choice in zip(before, choices)
    ]
    return len(set(seen)) < len(seen)
