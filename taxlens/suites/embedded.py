"""The embedded suites by name."""

from __future__ import annotations

from collections.abc import Callable

from taxlens.activations.items.items import Item, Suite
from taxlens.core.errors import ConfigError, one_of
from taxlens.suites import facts, instructions

PREFIX = "suite:"

_BUILDERS: dict[str, Callable[[], list[Item]]] = {
    "capitals": facts.capitals,
    "arithmetic": facts.arithmetic,
    "agreement": facts.agreement,
    "translation": facts.translation,
    "common_sense": facts.common_sense,
    "format": instructions.formats,
    "lookalikes": instructions.lookalikes,
    "refuse_harmful": instructions.refuse_harmful,
}
_BENEFITS = frozenset({"refuse_harmful"})


def names() -> list[str]:
    """Names of the embedded suites, capability suites first.

    Example:
        >>> names()[0]
        'suite:capitals'
    """
    return [PREFIX + name for name in _BUILDERS]


def load(name: str, *, rename: str | None = None, kind: str | None = None) -> Suite:
    """An embedded suite, the same items on every call and machine.

    Items were written by hand, or by rule from tables written by hand, and checked for one
    right answer. ``suite:refuse_harmful`` (benefit) and ``suite:lookalikes`` (over-refusal, a
    capability) choose between two fixed openings: they show the sign of a change; rates of
    refusal are measured by generation on the same prompts.

    Args:
        name: ``suite:capitals``, ... or without the prefix; see `names()`.
        rename: what tables call it; by default its name.
        kind: ``capability`` or ``benefit``; by default what the suite is.

    Returns:
        The suite.

    Raises:
        ConfigError: there is no such suite; lists those that there are.

    Example:
        >>> suite = load("suite:arithmetic")
        >>> len(suite) >= 150, suite.items[0].choices[suite.items[0].gold]
        (True, ' 19')
    """
    short = one_of(name.removeprefix(PREFIX), list(_BUILDERS), what="embedded suite", error=ConfigError)
    return Suite(
        name=rename or short,
        items=tuple(_BUILDERS[short]()),
        kind=kind or ("benefit" if short in _BENEFITS else "capability"),
        source=PREFIX + short,
    )
