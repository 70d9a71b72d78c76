"""What a frontier will cost before it is run, and held-out halves cut to a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taxlens.activations.tokens import encode_suite

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.activations.pair import ModelPair

RATE = 6e10
"""Multiply-adds counted as two: what two ordinary cores are taken to do in a second. A stated figure and not a
measured one, so that the same budget always gives the same items."""

FEWEST = 24
"""Held-out items of a suite that no budget goes below."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frontier will run.

    Args:
        plans: plans to measure.
        held_items: held-out items a suite, at most.
        tokens: tokens that one plan reads.
        minutes: estimated time of measuring all of them, on two cores.
    """

    plans: int
    held_items: int
    tokens: int
    minutes: float

    def __repr__(self) -> str:
        return (
            f"{self.plans} plans x {self.tokens} tokens (at most {self.held_items} held-out items a suite): about "
            f"{self.minutes:.0f} min on 2 cores"
        )


def read_tokens(pair: ModelPair, suite: Suite, *, template: str) -> int:
    """Tokens that scoring a suite reads, a prompt counted once for all its choices."""
    aligned = pair.aligned
    rows = encode_suite(
        suite, aligned.tokenizer, template=template, chat_template=aligned.chat_template if template == "chat" else None
    )
    prompts = {row.item: row.start for row in rows}
    return sum(prompts.values()) + sum(len(row.ids) - row.start for row in rows)


def plan_cost(pair: ModelPair, suites: Sequence[Suite], *, plans: int, template: Mapping[str, str]) -> Cost:
    """The cost of measuring a number of plans on these held-out suites."""
    tokens = sum(read_tokens(pair, suite, template=template[suite.name]) for suite in suites)
    size = sum(p.numel() for p in pair.aligned.model.parameters())
    return Cost(plans, max(len(s) for s in suites), tokens, plans * tokens * 2 * size / RATE / 60)


def within_budget(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    plans: int,
    minutes: float,
    template: Mapping[str, str],
    seed: int = 0,
) -> list[Suite]:
    """The suites, cut evenly (by whole groups, seeded) so that measuring the plans fits the budget.

    Never below 24 items a suite: a budget too small for that is overrun, and `plan_cost` says by how much.
    """
    cut, most = list(suites), max(len(suite) for suite in suites)
    while plan_cost(pair, cut, plans=plans, template=template).minutes > minutes and most > FEWEST:
        most = max(FEWEST, int(most * 0.9))
        cut = [at_most(suite, most, seed=seed) for suite in suites]
    return cut


def at_most(suite: Suite, items: int, *, seed: int = 0) -> Suite:
    """A suite of at most so many items: whole groups in seeded order, the last one in part."""
    if len(suite) <= items:
        return suite
    groups = suite.groups
    order = np.random.default_rng(seed).permutation(np.unique(groups.astype(str)))
    places = np.concatenate([np.flatnonzero(groups.astype(str) == name) for name in order])[:items]
    return suite.subset(np.sort(places))
