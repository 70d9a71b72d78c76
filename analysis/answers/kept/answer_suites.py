"""What both models answered as suites of items: read back token by token, they are captured, probed and attributed.

An item of such a suite has the prompt of the item that was answered, and two choices: what base said and what aligned
said. In the suite of base's answers base's is the right one, in that of aligned's aligned's. Its ``nll`` then is how
likely a model finds the answer; the tax in ``nll`` of base's answers is how much less likely alignment made what the
base would say, and attribution says which of the answer's tokens carry that, and which weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from taxlens.activations.items.items import Item, Suite
from taxlens.core.errors import ItemError, explain, one_of

if TYPE_CHECKING:
    from taxlens.analysis.answers.answers import Answers

SIDES = ("base", "aligned")


def answers_name(suite: str, side: str) -> str:
    """The name of the suite of one model's answers to a suite."""
    return f"{suite}.{one_of(side, SIDES, what='model')}_answers"


def answer_suite(answers: Answers, side: str) -> Suite:
    """One model's answers to a suite as a suite, the other model's beside them.

    Items that both models answer alike, or one with silence, are left out and counted: nothing parts the two answers.

    Args:
        answers: what both models said.
        side: whose answers are right, "base" or "aligned".

    Raises:
        ItemError: no item is left.
    """
    name, gold = answers_name(answers.suite.name, side), SIDES.index(side)
    items: list[Item] = []
    for item, base, aligned in zip(answers.suite.items, *answers.written, strict=True):
        if base.strip() and aligned.strip() and base.strip() != aligned.strip():
            items.append(
                replace(item, choices=(base, aligned), gold=gold, also_right=(), answers=(), match="", instructions=())
            )
    if not items:
        rows = [("suite", answers.suite.name), ("answers", len(answers.suite))]
        raise ItemError(explain("both models give the same answers, or none: no suite can be made of them.", rows))
    left = len(answers.suite) - len(items)
    return Suite(name, tuple(items), kind=answers.suite.kind, source=answers.suite.source, left_out=left)
