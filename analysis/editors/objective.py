"""The loss that trained editors share: the taxed answers back, refusals of harm as aligned has them, close to the base.

    loss = mean over taxed suites of choice + choice(harmless) + harm * hinge + kl * KL(base || model)
           + hold * KL(aligned || model) + nll * NLL

`choice` is minus the log of the gold answer's share of its item's choices, in units of what the aligned model loses on
the taxed suites; `hinge` is the mean over harmful items of max(0, aligned's margin - margin), in units of the margin
that alignment brought. KL and NLL are nats a token of the gold answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import pad
from taxlens.activations.items.sampling import at_most
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import network
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.scoring.evaluator import ChoiceMeasure, Values
from taxlens.analysis.scoring.logits import head_logits
from taxlens.core.errors import UsageError, explain

BATCH_TOKENS = 2048
"""Padded tokens of one forward and backward pass."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Weights of the terms of the loss.

    Args:
        choice, harmless_choice: of the contrast between gold and wrong answers, on taxed and on harmless items.
        harm: of the hinge on refusals of harm.
        kl: of the divergence from the base on the gold answers of taxed and harmless items.
        hold: of the divergence from the aligned model on the gold answers of harmful and harmless items.
        nll, harmless_nll, harm_nll: of the gold answers' negative log-likelihood a token, by kind of item.
    """

    choice: float = 1.0
    harmless_choice: float = 1.0
    harm: float = 5.0
    kl: float = 0.0
    hold: float = 0.0
    nll: float = 0.0
    harmless_nll: float = 0.0
    harm_nll: float = 0.0


@dataclass(frozen=True, slots=True)
class Draw:
    """Items of each kind that a step sees: of each taxed suite, of harmful and of harmless prompts."""

    taxed: int = 5
    harm: int = 5
    harmless: int = 4


class Objective:
    """The loss on drawn training items, and what validation items say.

    Args:
        task: items and roles.
        draw: items a step.
        validation_items: most validation items a suite that are looked at.
        foils: wrong answers of an item that a step sees, drawn anew each time; harmful prompts show all.
    """

    def __init__(self, task: EditTask, *, draw: Draw | None = None, validation_items: int = 12, foils: int = 1) -> None:
        self.task, self.draw, self.foils = task, draw or Draw(), foils
        self._rng = np.random.default_rng([task.seed, 17])
        self._rows = {name: _encoded(task, name) for name in task.suites}
        self._ends: dict[tuple[str, str, int], torch.Tensor] = {}
        suites = {name: task.train[name] for name in task.suites}
        train = ChoiceMeasure(
            task.pair, tuple(suites.values()), template=dict(task.template), metrics=("margin", "nll")
        )
        self._refused = train(task.pair.aligned.model)[task.harm]["margin"]
        harm = ChoiceMeasure(task.pair, (suites[task.harm],), template=dict(task.template), metrics=("margin",))
        before = harm(task.pair.base.model)[task.harm]["margin"]
        self.brought = float(self._refused.mean() - before.mean())
        if self.brought <= 0:
            rows = [
                ("harmful prompts", task.harm),
                ("refusal log-odds", f"{before.mean():.2f} to {self._refused.mean():.2f}"),
            ]
            fix = "give prompts that the aligned model learned to refuse."
            raise UsageError(explain("alignment brought no refusals of harm: there is nothing to keep.", rows, fix))
        self.scale = max(0.1, float(np.mean([self._choice_loss(name) for name in task.taxed])))
        self.validator = Validator(task, validation_items)

    def batches(self, seed: int) -> Iterator[dict[str, list[int]]]:
        """Item indices by suite, for ever: every item once before any comes again."""
        sizes = dict.fromkeys(self.task.taxed, self.draw.taxed)
        sizes |= {self.task.harm: self.draw.harm, self.task.harmless: self.draw.harmless}
        streams = {
            name: _endless(len(self._rows[name]), np.random.default_rng([self.task.seed, seed, place]))
            for place, name in enumerate(sizes)
        }
        while True:
            yield {name: [next(streams[name]) for _ in range(size)] for name, size in sizes.items()}

    def backward(self, model: Any, chosen: Mapping[str, Sequence[int]], prices: Prices) -> float:
        """Add the loss's gradient on some items to whatever of the model's inputs asks for one, and return the loss."""
        total = 0.0
        for batch in _packed([(name, i, self._seen(name, i)) for name, items in chosen.items() for i in items]):
            loss = self._loss(network(model), batch, {name: len(items) for name, items in chosen.items()}, prices)
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
        return total

    def _seen(self, name: str, item: int) -> list[Row]:
        """The gold answer's row and those of some wrong answers, in the order of the choices."""
        rows, gold = self._rows[name][item], int(self.task.train[name].items[item].gold or 0)
        if name == self.task.harm or len(rows) <= self.foils + 1:
            return rows
        others = [row for row in rows if row.choice != gold]
        drawn = self._rng.choice(len(others), self.foils, replace=False)
        return [rows[gold], *(others[int(i)] for i in drawn)]

    def _loss(
        self, model: Any, batch: Sequence[tuple[str, int, list[Row]]], counts: Mapping[str, int], prices: Prices
    ) -> torch.Tensor:
        task = self.task
        rows = [row for _, _, mine in batch for row in mine]
        logp, owner, picked = token_log_probabilities(model, rows)
        sums = torch.zeros(len(rows), dtype=picked.dtype, device=picked.device).index_add(0, owner, picked)
        loss, start = sums.new_zeros(()), 0
        for name, item, mine in batch:
            answer = int(task.train[name].items[item].gold or 0)
            here, gold = sums[start : start + len(mine)], [row.choice for row in mine].index(answer)
            row, at = mine[gold], owner == start + gold
            share = 1 / counts[name] / (len(task.taxed) if name in task.taxed else 1)
            nll = -here[gold] / (len(row.ids) - row.start)
            if name == task.harm:
                others = torch.cat([here[:gold], here[gold + 1 :]]).max()
                short = torch.relu(float(self._refused[item]) - (here[gold] - others)) / self.brought
                term = prices.harm * short + prices.harm_nll * nll
            else:
                taxed = name in task.taxed
                contrast = (here.logsumexp(0) - here[gold]) / self.scale
                term = (prices.choice if taxed else prices.harmless_choice) * contrast
                term = term + (prices.nll if taxed else prices.harmless_nll) * nll
                if prices.kl:
                    term = term + prices.kl * _divergence(self._known("base", name, item, row), logp[at])
            if prices.hold and name not in task.taxed:
                term = term + prices.hold * _divergence(self._known("aligned", name, item, row), logp[at])
            loss = loss + share * term
            start += len(mine)
        return loss

    def _known(self, end: str, name: str, item: int, row: Row) -> torch.Tensor:
        """Log-probabilities of one end of the pair at the row's choice, [tokens, vocabulary], made once."""
        if (end, name, item) not in self._ends:
            raise UsageError(explain("an end of the pair was not read before training.", [("item", item)]))
        return self._ends[end, name, item].float()

    def read_ends(self, chosen: Mapping[str, Sequence[int]], prices: Prices) -> None:
        """Make what the divergences of these items need. Call it while neither end of the pair is edited."""
        for end, names in (
            ("base", (*self.task.taxed, self.task.harmless)),
            ("aligned", (self.task.harm, self.task.harmless)),
        ):
            if not (prices.kl if end == "base" else prices.hold):
                continue
            model = network(getattr(self.task.pair, end))
            for name in names:
                for item in chosen.get(name, ()):
                    if (end, name, item) in self._ends:
                        continue
                    gold = int(self.task.train[name].items[item].gold or 0)
                    row = next(row for row in self._rows[name][item] if row.choice == gold)
                    with torch.no_grad():
                        self._ends[end, name, item] = token_log_probabilities(model, [row])[0].half().cpu()

    def _choice_loss(self, name: str) -> float:
        """What the aligned model loses on a suite's training items: mean of -log of the gold answer's share."""
        suite = self.task.train[name]
        measure = ChoiceMeasure(self.task.pair, (suite,), template=dict(self.task.template), metrics=("probability",))
        return float(-np.log(np.maximum(measure(self.task.pair.aligned.model)[name]["probability"], 1e-12)).mean())


@dataclass(frozen=True, slots=True)
class Validation:
    """What validation items say of an edited model.

    Args:
        returned: share of the taxes in probability that came back, all taxed suites at once.
        harm_kept: share of the refusal log-odds on harmful prompts that alignment brought and that is left.
        harmless: compliance log-odds on harmless prompts, the edited model's less aligned's, nats.
    """

    returned: float
    harm_kept: float
    harmless: float

    def score(self, keep: float) -> float:
        """What settings are chosen by: what is returned, less ten times what is lost of harm beyond the constraint."""
        return min(self.returned, 1.0) - 10 * max(0.0, keep - self.harm_kept)


class Validator:
    """Scores a model on the validation items; both ends are scored once.

    Args:
        task: items and roles.
        items: most items a suite.
    """

    def __init__(self, task: EditTask, items: int | None = None) -> None:

        self.task = task
        suites = [task.validation[name] for name in task.suites]
        suites = suites if items is None else [at_most(suite, items, seed=task.seed) for suite in suites]
        self.measure = ChoiceMeasure(
            task.pair, tuple(suites), template=dict(task.template), metrics=("probability", "margin")
        )
        self.base, self.aligned = self.measure(task.pair.base.model), self.measure(task.pair.aligned.model)

    def __call__(self, model: Any) -> Validation:
        """Validation of a model as an edit opens it."""
        return self.read(self.measure(model))

    def read(self, values: Values) -> Validation:
        """Validation of values that were measured already."""
        task = self.task

        def gone(which: Values) -> float:
            return sum(float((self.base[s]["probability"] - which[s]["probability"]).mean()) for s in task.taxed)

        whole = gone(self.aligned)
        harm = [float(v[task.harm]["margin"].mean()) for v in (self.base, self.aligned, values)]
        ok = [float(v[task.harmless]["margin"].mean()) for v in (self.aligned, values)]
        return Validation(
            returned=1 - gone(values) / whole if whole else float("nan"),
            harm_kept=(harm[2] - harm[0]) / (harm[1] - harm[0]) if harm[1] != harm[0] else float("nan"),
            harmless=ok[1] - ok[0],
        )


def token_log_probabilities(model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Next-token log-probabilities at every token of the rows' choices, with gradient.

    Returns:
        float [tokens, vocabulary]; the row of each, int64 [tokens]; the log-probability of the token itself [tokens].
    """
    asked = torch.tensor([(b, p) for b, row in enumerate(rows) for p in range(row.start - 1, len(row.ids) - 1)])
    logp = head_logits(model, *pad(rows, 0), asked).log_softmax(-1)
    targets = torch.tensor([token for row in rows for token in row.ids[row.start :]], device=logp.device)
    return logp, asked[:, 0].to(logp.device), logp.gather(1, targets[:, None])[:, 0]


def _divergence(reference: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
    """KL(reference || model), mean over tokens, nats."""
    reference = reference.to(logp.device, logp.dtype)
    return (reference.exp() * (reference - logp)).sum(-1).mean()


def _encoded(task: EditTask, name: str) -> list[list[Row]]:
    """Choice rows of each training item."""
    suite = task.train[name]
    rows = task.prompting(suite).rows(suite)
    found: list[list[Row]] = [[] for _ in suite.items]
    for row in rows:
        found[row.item].append(row)
    return found


def _endless(n: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(n).tolist()


def _packed(items: list[tuple[str, int, list[Row]]]) -> Iterator[list[tuple[str, int, list[Row]]]]:
    """Batches within the padded-token budget, longest first; all choices of an item stay together."""
    batch: list[tuple[str, int, list[Row]]] = []
    width = size = 0
    for one in sorted(items, key=lambda item: -max(len(row.ids) for row in item[2])):
        if batch and width * (size + len(one[2])) > BATCH_TOKENS:
            yield batch
            batch, size = [], 0
        if not batch:
            width = max(len(row.ids) for row in one[2])
        batch.append(one)
        size += len(one[2])
    if batch:
        yield batch
