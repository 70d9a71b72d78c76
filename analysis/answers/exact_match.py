"""A tax by generation: is the greedy answer the right one, and what stands for it in a gradient?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.answers.matching import RULES, has_answer, is_right
from taxlens.analysis.scoring.choices import score_rows
from taxlens.analysis.tax.ledger import Paired
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.stats.intervals import mean_interval

MATCHES = tuple(RULES)


def exact_match(answers: Answers, *, match: str = "prefix") -> Paired:
    """Right or wrong by generation, metric ``exact_match``: an item's accepted answers, or its right choice's text.

    Args:
        answers: what both models said.
        match: how items without a rule of their own are compared (see `matching.is_right`).

    Raises:
        UsageError: items without a right answer, or no such match.
    """
    one_of(match, MATCHES, what="match")
    if not all(has_answer(item) for item in answers.suite.items):
        raise UsageError(
            explain(
                "items without choices or accepted answers have no right answer.",
                [("suite", answers.suite.name)],
                "add answers, or choices and gold.",
            )
        )
    return answers.paired(
        "exact_match", lambda text, item: float(is_right(text, item if item.match else replace(item, match=match)))
    )


@dataclass(frozen=True, slots=True)
class Surrogate:
    """How well the likelihood of the base's own right answers stands for exact match.

    Attributes:
        tax: mean log-probability per answer that the aligned model lost on them, nats.
        low: lower end of its group-bootstrap interval.
        high: upper end.
        auc: probability that an item lost by generation lost more likelihood than one kept; NaN
            where none or all were lost. 1 is a perfect stand-in, .5 none.
        correlation: Pearson correlation of lost likelihood with lost (1) or kept (0); NaN likewise.
        n_items: items that base answered rightly.
        n_lost: of them, those that aligned does not.
    """

    tax: float
    low: float
    high: float
    auc: float
    correlation: float
    n_items: int
    n_lost: int


def answer_surrogate(
    pair: Any,
    answers: Answers,
    *,
    match: str = "prefix",
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 4096,
) -> Surrogate:
    """The differentiable stand-in for exact match, and how well it stands in.

    Attribution cannot differentiate generation; the log-likelihood of the base's own correct
    answers it can. This scores them under both models and compares, item by item, with what
    generation lost.

    Args:
        pair: the pair that answered.
        answers: what it said.
        match: as in `matches`.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.
        batch_tokens: most padded tokens in one batch.

    Returns:
        Surrogate.

    Raises:
        UsageError: base answered nothing rightly.
    """
    paired = exact_match(answers, match=match)
    right = np.flatnonzero((paired.base["exact_match"] == 1) & (np.array([bool(t.strip()) for t in answers.base])))
    if not len(right):
        raise UsageError(explain("the base answers no item of the suite rightly.", [("suite", answers.suite.name)]))
    drop = np.subtract(*(_likelihood(pair, m, answers, right, batch_tokens) for m in (pair.base, pair.aligned)))
    lost = paired.aligned["exact_match"][right] == 0
    found = mean_interval(drop, paired.groups[right], draws=bootstrap, seed=seed)
    both = 0 < lost.sum() < len(lost)
    order = (drop[lost][:, None] > drop[~lost]) + 0.5 * (drop[lost][:, None] == drop[~lost])
    return Surrogate(
        tax=found.value,
        low=found.low,
        high=found.high,
        auc=float(order.mean()) if both else float("nan"),
        correlation=float(np.corrcoef(drop, lost)[0, 1]) if both and np.ptp(drop) > 0 else float("nan"),
        n_items=len(right),
        n_lost=int(lost.sum()),
    )


def _likelihood(pair: Any, model: Any, answers: Answers, chosen: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Log-probability of the base's answers under a model, [chosen] nats."""
    asked, rows = as_asked(pair, model, answers.template), []
    for place, n in enumerate(chosen):
        answer = answers.base[n].strip().split("\n")[0]
        rows.append(asked.answer_row(answers.suite.items[n], f" {answer}", item=place))
    return score_rows(model, rows, batch_tokens=batch_tokens).logp
