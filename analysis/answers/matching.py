"""Whether a generated answer is one of the accepted ones, by the rule that its item names."""

from __future__ import annotations

import re
from collections.abc import Callable

from taxlens.activations.items.items import Item
from taxlens.analysis.answers.thinking import split_thinking
from taxlens.core.errors import ItemError, one_of

_EDGES = re.compile(r"^[\s\W_]+|[\s\W_]+$")
_FINAL = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def is_right(answer: str, item: Item) -> bool:
    """Whether an answer is right: one of the item's ``answers``, or the text of a right choice, by its ``match``.

    Thinking is taken off first. Rules: ``prefix`` (the default: the first line begins with it, as a whole word),
    ``exact`` (the first line is it), ``contains``, ``gsm8k`` (the number after "####", as lm-eval's strict match),
    ``number`` (the last number in the answer).

    Raises:
        ItemError: the item's rule is unknown.
    """
    rule = RULES[one_of(item.match or "prefix", list(RULES), what="match of an item", error=ItemError)]
    _, said = split_thinking(answer)
    return any(rule(said, right) for right in (item.answers or tuple(item.choices[n] for n in item.right)))


def has_answer(item: Item) -> bool:
    """Whether an item says what a right answer is."""
    return bool(item.answers) or item.gold is not None


def _line(text: str) -> str:
    return _EDGES.sub("", text.strip().split("\n")[0].casefold())


def _prefix(answer: str, right: str) -> bool:
    line, wanted = _line(answer), _EDGES.sub("", right.casefold())
    return line.startswith(wanted) and not line[len(wanted) : len(wanted) + 1].isalnum()


def _exact(answer: str, right: str) -> bool:
    return _line(answer) == _EDGES.sub("", right.casefold())


def _contains(answer: str, right: str) -> bool:
    return right.strip().casefold() in answer.casefold()


def _gsm8k(answer: str, right: str) -> bool:
    found = _FINAL.search(answer)
    return found is not None and _plain(found[1]) == _plain(right)


def _last_number(answer: str, right: str) -> bool:
    found = [one or two for one, two in _NUMBER.findall(answer)]
    return bool(found) and _plain(found[-1]) == _plain(right)


def _plain(number: str) -> str:
    """A number without what lm-eval's gsm8k ignores: commas, a dollar sign, a full stop at the end."""
    return number.strip().replace(",", "").replace("$", "").removesuffix(".")


RULES: dict[str, Callable[[str, str], bool]] = {
    "prefix": _prefix,
    "exact": _exact,
    "contains": _contains,
    "gsm8k": _gsm8k,
    "number": _last_number,
}
"""Rule -> (answer, accepted answer) -> whether it is right."""
