"""What a frontier will cost before it is run, and held-out halves cut to a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.prompts import one_prompting

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair

RATES = {"cpu": 1.2e11, "cuda": 2e14}
"""Multiply-adds counted as two: what two ordinary cores, or one GPU of a data centre, are taken to do in a second.
Stated figures and not those of the machine at hand, so that the same budget on the same kind of device always gives the
same items."""

FEWEST = 24
"""Held-out items of a suite that no budget goes below."""


PASSES = 2.5
"""What one gradient of the attribution costs, in forward passes over every choice's row: it takes no gradient of weights."""

TRAINING_PASSES = 3.5
"""The same where gradients of weights are taken too."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frontier will run.

    Args:
        plans: plans to measure.
        held_items: held-out items a suite, at most.
        tokens: tokens that one plan reads.
        minutes: estimated time of measuring all of them, at the stated rate of the device.
        attribution: estimated minutes of the effects on the training half.
        answers: prompts answered by generation, over all models.
        generation: estimated minutes of those answers.
        learning: estimated minutes of the orders that look at the weights more than once.
    """

    plans: int
    held_items: int
    tokens: int
    minutes: float
    attribution: float = 0.0
    answers: int = 0
    generation: float = 0.0
    learning: float = 0.0

    @property
    def total(self) -> float:
        """Minutes of everything."""
        return self.minutes + self.attribution + self.generation + self.learning

    def __repr__(self) -> str:
        words = (
            f"{self.plans} plans x {self.tokens} tokens (at most {self.held_items} held-out items a suite): about "
            f"{self.minutes:.0f} min on 2 cores"
        )
        if self.attribution:
            words += f"; effects on the training half: about {self.attribution:.0f} min"
        if self.learning:
            words += f"; learned plans: about {self.learning:.0f} min"
        if self.answers:
            words += f"; {self.answers} answers by generation: about {self.generation:.0f} min"
        return words + ("" if self.total == self.minutes else f"; in all about {self.total:.0f} min")


def read_tokens(pair: ModelPair, suite: Suite, *, template: str, shared: bool = True) -> int:
    """Tokens that scoring a suite reads; a prompt counts once for all its choices, or (not shared) once for each."""
    rows = one_prompting(pair, suite, template).rows(suite)
    if not shared:
        return sum(len(row.ids) for row in rows)
    prompts = {row.item: row.start for row in rows}
    return sum(prompts.values()) + sum(len(row.ids) - row.start for row in rows)


def minutes_for(pair: ModelPair, tokens: float) -> float:
    """Estimated minutes of reading so many tokens, at the stated rate of the pair's kind of device."""
    device = getattr(getattr(pair.aligned, "device", None), "type", "cpu")
    rate = RATES.get(device, RATES["cpu"])
    return tokens * 2 * sum(p.numel() for p in pair.aligned.model.parameters()) / rate / 60


def plan_cost(pair: ModelPair, suites: Sequence[Suite], *, plans: int, template: Mapping[str, str]) -> Cost:
    """The cost of measuring a number of plans on these held-out suites."""
    tokens = sum(read_tokens(pair, suite, template=template[suite.name]) for suite in suites)
    return Cost(plans, max(len(s) for s in suites), tokens, minutes_for(pair, plans * tokens))


def attribution_minutes(
    pair: ModelPair, suites: Sequence[Suite], *, gradients: int, template: Mapping[str, str]
) -> float:
    """Estimated minutes of attributing these training suites with so many gradients."""
    tokens = sum(read_tokens(pair, suite, template=template[suite.name], shared=False) for suite in suites)
    return minutes_for(pair, tokens * gradients * PASSES)


def within_budget(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    plans: int,
    minutes: float,
    template: Mapping[str, str],
    seed: int = 0,
) -> list[Suite]:
    """The suites, cut evenly (spread over groups, seeded) so that measuring the plans fits the budget.

    Never below 24 items a suite: a budget too small for that is overrun, and `plan_cost` says by how much. The
    minutes are those of measuring alone.
    """
    cut, most = list(suites), max(len(suite) for suite in suites)
    while plan_cost(pair, cut, plans=plans, template=template).minutes > minutes and most > FEWEST:
        most = max(FEWEST, int(most * 0.9))
        cut = [at_most(suite, most, seed=seed) for suite in suites]
    return cut
