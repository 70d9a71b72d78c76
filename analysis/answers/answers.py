"""What both models of a pair say to a suite's prompts, and what can be counted on the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.kept.answer_store import Kept, kept_answers
from taxlens.analysis.answers.kept.answer_suites import answer_suite
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.analysis.tax.ledger import Paired
from taxlens.core.errors import ItemError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.shared_work import shared

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
        written: (base, aligned), each [n] answers with the white space at their ends, as the models wrote them.
    """

    figure: ClassVar[str] = "answers"

    suite: Suite
    template: str
    base: tuple[str, ...]
    aligned: tuple[str, ...]
    tokens: tuple[np.ndarray, np.ndarray]
    seconds: tuple[float, float]
    batches: tuple[np.ndarray, np.ndarray] = (np.empty((0, 2)), np.empty((0, 2)))
    written: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def __post_init__(self) -> None:
        if not self.written[0]:
            object.__setattr__(self, "written", (self.base, self.aligned))

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
                        "refuses": [int(refused) for refused in self._refused(texts)],
                    }
                )
                for model, texts, tokens in zip(("base", "aligned"), (self.base, self.aligned), self.tokens)
            ],
            ignore_index=True,
        )

    def as_suite(self, side: str) -> Suite:
        """One model's answers ("base" or "aligned") as a suite to score, capture, probe and attribute (`answer_suites`)."""
        return answer_suite(self, side)

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

    def _refused(self, texts: Sequence[str]) -> list[bool]:
        return [is_refusal(text, item.prompt or "") for text, item in zip(texts, self.suite.items, strict=True)]

    def __repr__(self) -> str:
        rates = [np.mean(self._refused(texts)) for texts in (self.base, self.aligned)]
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
    folder: Path | None = None,
    backends: Mapping[str, Any] | None = None,
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
        folder: where answers are kept as they are made, one file a model: a killed generation goes on at its next batch.
        backends: "base" and "aligned" to another engine that generates (`backends.vllm_backend`, checked first).
        progress: told of every batch.

    Returns:
        Answers.

    Raises:
        ItemError: no item has a prompt, or one leaves no room for its answer.
        ModelLoadError: ``chat`` is asked and neither model has a template.
    """
    asked_items = [n for n, item in enumerate(suite.items) if item.prompt and item.prompt.strip()]
    if not asked_items:
        raise ItemError(explain("no item has a prompt to answer.", [("suite", suite.name)]))
    suite = suite.subset(asked_items)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "stop": tuple(stop),
        "temperature": temperature,
        "seed": seed,
    }
    asked = {name: as_asked(pair, getattr(pair, name), template) for name in ("base", "aligned")}
    budgets = {}
    for name, one in asked.items():
        one.text("")  # refuses a missing template before any work
        lengths = [len(one.prompt_ids(item)) + max_new_tokens for item in suite.items]
        _check_room(suite, lengths, max_new_tokens, one.max_length)
        budgets[name] = min(batch_tokens, max(max(lengths), sum(lengths) // BATCHES))

    def answer(name: str) -> Kept:
        return kept_answers(
            getattr(pair, name), suite.items, template=template, chat_template=asked[name].chat_template,
            path=answers_file(folder, suite.name, template, name), backend=(backends or {}).get(name),
            batch_tokens=budgets[name], progress=progress, **options,
        )  # fmt: skip

    work = f"answers to {suite.name} ({suite.sha256[:12]}) {template} {options}"
    kept = list(shared(work, ("base", "aligned"), answer))
    for name, found in zip(asked, kept, strict=True):
        found.write(answers_file(folder, suite.name, template, name))
    written = [tuple(said[0].text for said in one.said) for one in kept]
    tokens = [np.array([said[0].tokens for said in one.said]) for one in kept]
    seconds = [float(one.batches[:, 1].sum()) for one in kept]
    texts = [tuple(text.strip() for text in side) for side in written]
    return Answers(
        suite, template, texts[0], texts[1], (tokens[0], tokens[1]), (seconds[0], seconds[1]),
        (kept[0].batches, kept[1].batches), (written[0], written[1]),
    )  # fmt: skip


def answers_file(folder: Path | None, suite: str, template: str, side: str, *, samples: bool = False) -> Path | None:
    """Where a model's answers to a suite are kept: ``SUITE.TEMPLATE.MODEL.jsonl``, its samples beside them."""
    return None if folder is None else folder / f"{suite}.{template}.{side}{'.samples' * samples}.jsonl"


def _check_room(suite: Suite, lengths: Sequence[int], room: int, limit: int | None) -> None:
    """Refuse a prompt after which the model cannot read as many tokens as the answer may have."""
    longest = int(np.argmax(lengths))
    if limit is not None and lengths[longest] > limit:
        rows = [
            ("suite", suite.name),
            ("item", repr(suite.items[longest].id)),
            ("tokens", f"{lengths[longest] - room} of the prompt and {room} of the answer, the model reads {limit}"),
        ]
        raise ItemError(explain("a prompt leaves no room for its answer.", rows, "max_new_tokens, or skip: [too_long]"))
