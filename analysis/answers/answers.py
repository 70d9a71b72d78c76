"""What both models of a pair say to a suite's prompts, and what can be counted on the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.lengths import network
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.analysis.tax.ledger import Paired
from taxlens.core.errors import ItemError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.shared_work import shared
from taxlens.core.stopwatch import Stopwatch

BATCHES = 12
"""Batches that the prompts of a suite are cut into at least, where there are as many prompts."""


@dataclass(frozen=True, slots=True, repr=False)
class Answers(Result):
    """Both models' answers to the prompts of a suite.

    Attributes:
        suite: the items that were asked, in order (those with a prompt).
        template: ``plain`` or ``chat``.
        base: [n] answers of the base model.
        aligned: [n] answers of the aligned model.
        tokens: (base, aligned), each [n] tokens of the answer.
        seconds: (base, aligned) wall time of all answers, in the same run; never equal twice.
        batches: (base, aligned), each [batches, 2] prompts and seconds of a batch; empty where it was not timed.
    """

    figure: ClassVar[str] = "answers"

    suite: Suite
    template: str
    base: tuple[str, ...]
    aligned: tuple[str, ...]
    tokens: tuple[np.ndarray, np.ndarray]
    seconds: tuple[float, float]
    batches: tuple[np.ndarray, np.ndarray] = (np.empty((0, 2)), np.empty((0, 2)))

    def to_frame(self) -> pd.DataFrame:
        """One row an item and model: the answer, its tokens, whether it refuses."""
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "suite": self.suite.name,
                        "item": [item.id for item in self.suite.items],
                        "group": self.suite.groups,
                        "template": self.template,
                        "model": model,
                        "prompt": [item.prompt for item in self.suite.items],
                        "answer": texts,
                        "tokens": tokens,
                        "refuses": [int(is_refusal(text)) for text in texts],
                    }
                )
                for model, texts, tokens in zip(("base", "aligned"), (self.base, self.aligned), self.tokens)
            ],
            ignore_index=True,
        )

    def paired(self, metric: str, count: Callable[[str, Item], float]) -> Paired:
        """Both models' answers turned into numbers by ``count(answer, item)``, as a metric of the ledger."""
        values = [
            np.array([count(text, item) for text, item in zip(texts, self.suite.items)], dtype=np.float64)
            for texts in (self.base, self.aligned)
        ]
        ids = tuple(item.id for item in self.suite.items)
        return Paired(
            self.suite.name, self.suite.kind, self.template, ids, self.suite.groups,
            {metric: values[0]}, {metric: values[1]},
        )  # fmt: skip

    def __repr__(self) -> str:
        rates = [np.mean([is_refusal(text) for text in texts]) for texts in (self.base, self.aligned)]
        return (
            f"Answers: {self.suite.name} ({self.template}), n={len(self.base)}; tokens {self.tokens[0].mean():.1f} -> "
            f"{self.tokens[1].mean():.1f}, refusals {rates[0]:.0%} -> {rates[1]:.0%}"
        )


def generate_answers(
    pair: Any,
    suite: Suite,
    *,
    template: str = "chat",
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> Answers:
    """Both models' answers to every prompt of a suite: greedy, or sampled.

    Prompts run in `BATCHES` batches or more where there are as many, so that the time of an item has an interval;
    before the clock starts each model has answered one prompt.

    Args:
        pair: a loaded pair.
        suite: items; those without a prompt are passed over, choices do not matter.
        template: ``chat`` or ``plain``.
        max_new_tokens: where an answer is cut.
        stop: texts that end an answer; they are no part of it.
        temperature: of the sampling; 0 is greedy.
        seed: of the sampling, the same for both models.
        batch_tokens: padded tokens in one batch, answers included.
        progress: told of every batch.

    Returns:
        Answers.

    Raises:
        ItemError: no item has a prompt.
        ModelLoadError: ``chat`` is asked and neither model has a template.
    """
    asked = [n for n, item in enumerate(suite.items) if item.prompt and item.prompt.strip()]
    if not asked:
        raise ItemError(explain("no item has a prompt to answer.", [("suite", suite.name)]))
    suite = suite.subset(asked)
    prompts = [item.prompt or "" for item in suite.items]
    lengths = [len(pair.base.tokenizer(prompt).input_ids) + max_new_tokens for prompt in prompts]
    batch_tokens = min(batch_tokens, max(max(lengths), sum(lengths) // BATCHES))
    options: dict[str, Any] = {
        "template": template, "max_new_tokens": max_new_tokens, "stop": stop, "temperature": temperature, "seed": seed,
    }  # fmt: skip

    def answer(name: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        model = getattr(pair, name)
        asked = as_asked(pair, model, template)
        asked.text("")  # refuses a missing template before any work
        watch = Stopwatch(progress)
        how = options | {"chat_template": asked.chat_template}
        generate(network(model), model.tokenizer, suite.items[:1], **how)
        said = generate(network(model), model.tokenizer, suite.items, **how, batch_tokens=batch_tokens, progress=watch)
        counts = [len(model.tokenizer(text, add_special_tokens=False).input_ids) for text in said]
        return tuple(said), watch.steps, np.array(counts)

    name = f"answers to {suite.name} ({suite.sha256[:12]}) {options}"
    texts, batches, tokens = zip(*shared(name, ("base", "aligned"), answer), strict=True)
    seconds = (float(batches[0][:, 1].sum()), float(batches[1][:, 1].sum()))
    return Answers(suite, template, texts[0], texts[1], (tokens[0], tokens[1]), seconds, (batches[0], batches[1]))
