"""Attribution of metrics that are functions of the logits themselves: KL to the base, or any user function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from taxlens.analysis.path.adaptive_quadrature import Choices
from taxlens.analysis.path.attribution import SuiteEffects
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.analysis.path.engine import PathAttribution
from taxlens.analysis.path.gradient_passes import ItemShard, RowScore
from taxlens.analysis.path.shard_walk import choices_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite

PerPosition = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits [asked, vocabulary], base's logits there, target tokens [asked]) -> a value for each position."""


def kl_to_base(logits: torch.Tensor, base: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    """KL divergence of the base's next-token distribution from the model's, nats, at each position."""
    there, here = torch.log_softmax(base, -1), torch.log_softmax(logits, -1)
    return (there.exp() * (there - here)).sum(-1)


@dataclass(frozen=True, slots=True)
class LogitMetric:
    """A metric that is any differentiable function of the logits at the tokens of an item's gold choice, summed.

    Args:
        function: see `PerPosition`.
        higher_is_better: whether a fall of the metric is a loss.

    Example:
        >>> entropy = LogitMetric(lambda logits, base, targets: torch.distributions.Categorical(logits=logits).entropy())
        >>> pair.attribute(facts, metrics=("entropy",), functions={"entropy": entropy})  # doctest: +SKIP
    """

    function: PerPosition
    higher_is_better: bool = False


KL = LogitMetric(kl_to_base)
"""The metric `kl`: how far the predictions of the gold choice's tokens have moved from the base's, nats an item."""


def logit_effects(
    job: PathAttribution, suites: Sequence[Suite], name: str, metric: LogitMetric
) -> dict[str, SuiteEffects]:
    """Walk suites for one metric of the logits, with a job's model, hooks and settings; effects by suite name."""
    value = ScoreMetric(lambda scores, gold: scores[..., 0], higher_is_better=metric.higher_is_better)
    asked = dataclasses.replace(job.settings, metrics=(name,), functions={name: value})
    alone = PathAttribution(job.pair, job.path, job.contraction, asked, job.selection)
    return {suite.name: _suite(alone, suite, metric.function) for suite in suites}


def _suite(job: PathAttribution, suite: Suite, function: PerPosition) -> SuiteEffects:
    gold = [row for row in job.rows(suite) if row.choice == suite.items[row.item].gold]
    vocabulary = int(job.path.model.config.get_text_config().vocab_size)
    found = job.in_rounds(
        gold, suite, job.settings.rules, read=_gold_alone,
        score=lambda shard: _score(function, _base_logits(job, shard)),
        beside=lambda row: 4 * vocabulary * (len(row.ids) - row.start),
    )  # fmt: skip
    return job.finished(found)


def _gold_alone(shard: ItemShard, suite: Suite) -> Choices:
    """The gold choices as the only ones."""
    choices = choices_of(shard, suite)
    return Choices(choices.item, choices.choice * 0, choices.gold * 0, choices.n_bytes[:, :1])


def _base_logits(job: PathAttribution, shard: ItemShard) -> tuple[torch.Tensor, torch.Tensor]:
    """The base's logits at every asked position [asked, vocabulary], and which of them is each token's, [tokens]."""
    model, held = job.path.to(0.0), []
    place, count = torch.zeros(shard.n_tokens, dtype=torch.int64), 0
    with torch.no_grad():
        for bundle in shard.bundles:
            held.append(bundle.logits(model))
            for _, _, token, at in bundle.lanes:
                place[token] = at + count
            count += len(held[-1])
    logits = torch.cat(held)
    return logits, place.to(logits.device)


def _score(function: PerPosition, base: tuple[torch.Tensor, torch.Tensor]) -> RowScore:
    logits_of_base, place = base

    def score(logits: torch.Tensor, targets: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return function(logits, logits_of_base[place[tokens]], targets)

    return score
