"""Quick figures of the world's suites, straight from weights: for acceptance tests and the exact oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights
from benchmarks.truth.worlds.texts import Texts, encode
from benchmarks.truth.worlds.world import World, suite_items


@dataclass(frozen=True, slots=True)
class Exam:
    """A suite, encoded: one row a choice.

    Attributes:
        texts: rows [items * choices].
        gold: index of the gold choice [items].
        choices: number of choices (the same for every item).
        items: the records.
    """

    texts: Texts
    gold: torch.Tensor
    choices: int
    items: Sequence[dict[str, Any]]


def exam(world: World, task: str, *, template: str = "plain", items: int | None = None) -> Exam:
    """A suite of the world ready to score, or its first-drawn `items` (evenly spread)."""
    records = suite_items(world, task)
    if items is not None and items < len(records):
        records = [records[i] for i in np.linspace(0, len(records) - 1, items).astype(int)]
    choices = len(records[0]["choices"])
    prompts = [r["prompt"] for r in records for _ in r["choices"]]
    texts = encode(prompts, [c.strip() for r in records for c in r["choices"]], template=template)
    return Exam(texts, torch.tensor([r["gold"] for r in records]), choices, records)


@torch.no_grad()
def choice_scores(model: PreTrainedModel, weights: Weights, sheet: Exam) -> torch.Tensor:
    """Summed log-probability of each choice's words [items, choices] (the end of text is not part of it)."""
    ids = sheet.texts.ids[:, : int(sheet.texts.stop.max())]
    logits = functional_call(model, weights, kwargs={"input_ids": ids}).logits
    logp = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    at = torch.arange(ids.shape[1] - 1)
    words = (at >= sheet.texts.start[:, None] - 1) & (at < sheet.texts.stop[:, None] - 2)
    return (logp * words).sum(1).view(-1, sheet.choices)


def marks(model: PreTrainedModel, weights: Weights, sheet: Exam) -> dict[str, np.ndarray]:
    """Accuracy, probability and nll of every item of a suite."""
    scores = choice_scores(model, weights, sheet)
    rows = torch.arange(len(scores))
    gold = scores.softmax(1)[rows, sheet.gold]
    return {
        "accuracy": (scores.argmax(1) == sheet.gold).double().numpy(),
        "probability": gold.double().numpy(),
        "nll": -scores[rows, sheet.gold].double().numpy(),
        "refusal": scores.softmax(1)[:, -1].double().numpy(),
    }


def mean_marks(model: PreTrainedModel, weights: Weights, sheet: Exam) -> dict[str, float]:
    """The same, averaged over items."""
    return {name: float(values.mean()) for name, values in marks(model, weights, sheet).items()}
