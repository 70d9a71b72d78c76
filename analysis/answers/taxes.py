"""The taxes that accuracy of choices does not show, for a list of suites: prior, generation, costs, divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from taxlens.activations.items.items import Suite
from taxlens.analysis.answers.answer_tables import ANSWERS, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.answers.answers import Answers, generate_answers
from taxlens.analysis.answers.costs import Costs, answer_costs
from taxlens.analysis.answers.exact_match import answer_surrogate, exact_match
from taxlens.analysis.answers.following.instruction_scores import instructions_followed
from taxlens.analysis.answers.matching import has_answer
from taxlens.analysis.answers.positions import answer_divergence
from taxlens.analysis.answers.refusal_rates import judge_error
from taxlens.analysis.answers.refusals import Judge
from taxlens.analysis.answers.versatility import measure_versatility
from taxlens.analysis.tax.ledger import Paired, tax_frame
from taxlens.core.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class OtherTaxes:
    """What generation adds to a ledger.

    Attributes:
        tax: rows of tax.csv: ``exact_match`` for suites that say what is right, the four accuracies of instructions.
        costs: refusal_rate, tokens, seconds_per_item, and with samples entropy, distinct-n, compression.
        divergence: KL and rank shift by answer position.
        answers: every answer of both models.
        surrogate: how well the likelihood of base's own right answers stands for exact match, a row a suite.
        said: what both models said, by suite and template.
    """

    tax: pd.DataFrame
    costs: pd.DataFrame
    divergence: pd.DataFrame
    answers: pd.DataFrame
    surrogate: pd.DataFrame
    said: dict[tuple[str, str], Answers]


def measure_other_taxes(
    pair: Any,
    suites: Sequence[tuple[Suite, str]],
    *,
    max_new_tokens: int = 32,
    samples: int = 0,
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 4096,
    brief: Sequence[tuple[Suite, str]] = (),
    judge: Judge | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> OtherTaxes:
    """Generate both models' answers to suites and count what they cost.

    Args:
        pair: a loaded pair.
        suites: (suite, template) each; every suite at least one item with a prompt.
        max_new_tokens: where an answer is cut.
        samples: continuations a prompt for versatility; 0 leaves it out, else at least 2.
        bootstrap: draws of the group bootstrap.
        seed: of the draws and of the sampling.
        batch_tokens: padded tokens in one batch.
        brief: further suites, of which refusals, tokens, time and versatility alone are counted.
        judge: who says which answers refuse; None: the package's rule.
        folder: where answers are kept as they are made, so that a killed run goes on at the next prompt.
        progress: told of every batch.

    Returns:
        OtherTaxes; all frames are empty where ``suites`` and ``brief`` are.

    Raises:
        ItemError: a suite without prompts.
        ModelLoadError: ``chat`` is asked and neither model has a template.
    """
    matched: list[Paired] = []
    costs: list[Costs] = []
    frames: dict[str, list[pd.DataFrame]] = {"divergence": [], "answers": []}
    surrogates = []
    every: dict[tuple[str, str], Answers] = {}
    shared: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    error = judge_error(judge) if (suites or brief) and judge is not None else None
    for suite, template, costs_only in [*((*one, False) for one in suites), *((*one, True) for one in brief)]:
        answers = generate_answers(
            pair,
            suite,
            template=template,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            folder=folder,
            progress=progress,
        )
        every[suite.name, template] = answers
        frames["answers"].append(answers.to_frame())
        costs.append(answer_costs(answers, judge=judge, error=error, **shared))
        if samples:
            varied = measure_versatility(
                pair, suite, template=template, samples=samples, max_new_tokens=max_new_tokens,
                batch_tokens=batch_tokens, folder=folder, progress=progress, **shared,
            )  # fmt: skip
            costs.append(varied)
        if costs_only:
            continue
        if any(text.strip() for text in answers.aligned):
            found = answer_divergence(pair, answers, progress=progress, **shared)
            frames["divergence"].append(found.to_frame())
        right = _right(answers)
        matched += right
        if any(one.base["exact_match"].any() for one in right if "exact_match" in one.base):
            surrogates.append(_surrogate(pair, answers, **shared))  # the likelihood of right answers stands in
    return OtherTaxes(
        tax=tax_frame(matched, **shared),
        costs=COSTS.join(cost.frame for cost in costs),
        divergence=DIVERGENCE.join(frames["divergence"]),
        answers=ANSWERS.join(frames["answers"]),
        surrogate=SURROGATE.frame(surrogates),
        said=every,
    )


def _right(answers: Answers) -> list[Paired]:
    """Which answers are right, where the items say what is: by their instructions, or by exact match."""
    if all(item.instructions for item in answers.suite.items):
        return [instructions_followed(answers)]
    return [exact_match(answers)] if all(has_answer(item) for item in answers.suite.items) else []


def _surrogate(pair: Any, answers: Answers, *, bootstrap: int, seed: int) -> dict[str, object]:
    found = answer_surrogate(pair, answers, bootstrap=bootstrap, seed=seed)
    names = ("tax", "low", "high", "auc", "correlation", "n_items", "n_lost")
    row: dict[str, object] = {"suite": answers.suite.name, "template": answers.template}
    return row | {name: getattr(found, name) for name in names}
