"""How well both models' answers keep to the instructions of their items: IFEval's four accuracies as a ledger's entry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taxlens.activations.items.items import Item
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.answers.following.instructions import follows, follows_loosely
from taxlens.analysis.answers.thinking import split_thinking
from taxlens.analysis.tax.ledger import Paired
from taxlens.core.errors import ItemError, explain
from taxlens.core.stats.ratios import ratio_influence


def instructions_followed(answers: Answers) -> Paired:
    """Strict and loose accuracy by prompt and by instruction, as metrics of the ledger.

    By prompt, every instruction of an item is to be followed; by instruction, the share of all instructions, written item by
    item as that share plus the item's influence on it, so that their mean is the share. Thinking is taken off first.

    Args:
        answers: what both models said to items with ``instructions``.

    Raises:
        ItemError: an item has none, or one that cannot be checked.
    """
    lacking = [item.id for item in answers.suite.items if not item.instructions]
    if lacking:
        rows = [("suite", answers.suite.name), ("items", f"{len(lacking)}, first {lacking[0]!r}")]
        raise ItemError(explain("items without instructions cannot be checked for them.", rows, "format: ifeval"))
    sides = [_metrics(answers.suite.items, texts) for texts in (answers.base, answers.aligned)]
    ids = tuple(item.id for item in answers.suite.items)
    return Paired(
        answers.suite.name, answers.suite.kind, answers.template, ids, answers.suite.groups, sides[0], sides[1]
    )


def _metrics(items: Sequence[Item], texts: Sequence[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    counts = np.array([len(item.instructions) for item in items], dtype=np.float64)
    for name, check in (("strict", follows), ("loose", follows_loosely)):
        kept = np.array(
            [
                sum(check(split_thinking(text)[1], one) for one in item.instructions)
                for item, text in zip(items, texts, strict=True)
            ],
            dtype=np.float64,
        )
        found[f"prompt_level_{name}"] = (kept == counts).astype(np.float64)
        found[f"instruction_level_{name}"] = ratio_influence(kept, counts)
    return found
