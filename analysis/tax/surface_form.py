"""Knowledge or prior? The tax of how likely the choices are before any question is asked.

A model that came to dislike a choice's wording loses accuracy without losing what it
knows. Dividing each choice's probability by its probability without the prompt
(pointwise mutual information) removes that; what it removes is calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Suite
from taxlens.analysis.scoring.choices import SuiteScores, score_suite
from taxlens.analysis.scoring.metrics import log_sum_exp, metric_of
from taxlens.analysis.tax.ledger import Paired
from taxlens.analysis.tax.tax import Tax
from taxlens.analysis.tax.tax_tables import PRIOR
from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval, sum_intervals

METRICS = ("accuracy", "probability", "margin")


@dataclass(frozen=True, slots=True, repr=False)
class PriorTax(Result):
    """The tax with and without the choices' prior, and how far the prior moved.

    Parts of a metric: ``tax`` as measured, ``knowledge`` after PMI, ``calibration`` their
    difference. Rows of metric ``prior_kl``: KL(aligned || base) of the softmax over the choices'
    priors, nats, at least 0; ``prior_gold``: what the right choice lost of that softmax.

    Attributes:
        frame: one row a suite, template, metric and part.
        measured: both models' PMI metrics by item.
    """

    figure: ClassVar[str] = "prior"

    frame: pd.DataFrame
    measured: tuple[Paired, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a suite, template, metric and part."""
        return self.frame.copy()

    def __repr__(self) -> str:
        rows = self.frame[self.frame["metric"] == "probability"]
        wide = rows.pivot(index=["suite", "template"], columns="part", values="value")
        parts = (
            f"{name} ({template}): of {row['tax'] * 100:+.1f} pts, {row['knowledge'] * 100:+.1f} remain after PMI"
            for (name, template), row in wide.iterrows()
        )
        return "PriorTax: " + "; ".join(parts)


def measure_prior(
    pair: Any,
    tax: Tax,
    *,
    premise: str = "",
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> PriorTax:
    """Split a measured tax into what PMI keeps and what it removes.

    The prior of a choice is its log-probability after ``premise`` alone: nothing but the
    tokenizer's BOS (lm-eval's acc_mutual_info) or a neutral text such as "Answer:"
    (domain-conditional PMI). Suites whose choices have contexts of their own are passed over: their choices
    are equal, and so are the priors. Misleads where every item has the same choices: there the prior
    cancels only if the premise does too.

    Args:
        pair: the pair that ``tax`` was measured on.
        tax: what `measure_tax` returned; its scores are used again.
        premise: text in place of the prompt.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.
        batch_tokens: most padded tokens in one batch.
        progress: told of every batch.

    Returns:
        PriorTax; the prior is always read in the plain template.

    Raises:
        UsageError: ``tax`` holds no scores.

    References:
        Holtzman et al. 2021, arXiv 2104.08315 (surface form competition).
    """
    if not tax.scores:
        raise UsageError(explain("this tax holds no scores to divide by a prior.", fix="measure_tax on the pair"))
    kept = [suite for suite in tax.suites if not any(item.contexts for item in suite.items)]
    priors = {
        suite.name: tuple(
            _prior(model, suite, premise, batch_tokens=batch_tokens, progress=progress)
            for model in (pair.base, pair.aligned)
        )
        for suite in kept
    }
    rows: list[dict[str, object]] = []
    measured = []
    for paired, scores in zip(tax.measured, tax.scores):
        if paired.suite not in priors:
            continue
        prior = priors[paired.suite]
        sides = [(s.metrics(METRICS), replace(s, logp=s.logp - p.logp).metrics(METRICS)) for s, p in zip(scores, prior)]
        measured.append(replace(paired, base=sides[0][1], aligned=sides[1][1]))
        rows += _parts(paired, sides, bootstrap=bootstrap, seed=seed)
        rows += _shift(paired, prior, bootstrap=bootstrap, seed=seed)
    return PriorTax(PRIOR.frame(rows), tuple(measured))


def _prior(model: Any, suite: Suite, premise: str, *, batch_tokens: int, progress: Progress) -> SuiteScores:
    items = tuple(replace(item, prompt=premise) for item in suite.items if item.choices)
    return score_suite(model, replace(suite, items=items), batch_tokens=batch_tokens, progress=progress)


def _parts(
    paired: Paired, sides: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], *, bootstrap: int, seed: int
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for metric in METRICS:
        tax, knowledge = (metric_of(metric).sign * (sides[0][k][metric] - sides[1][k][metric]) for k in (0, 1))
        columns = np.stack([tax, knowledge, tax - knowledge], axis=1)
        low, high = sum_intervals(columns, paired.groups, draws=bootstrap, seed=seed)
        for number, part in enumerate(("tax", "knowledge", "calibration")):
            rows.append(_line(paired, metric, part, columns[:, number].mean(), low[number], high[number]))
    return rows


def _shift(paired: Paired, prior: Sequence[SuiteScores], *, bootstrap: int, seed: int) -> list[dict[str, object]]:
    base, aligned = (scores.logp - log_sum_exp(scores.logp)[:, None] for scores in prior)
    divergence = np.nansum(np.exp(aligned) * (aligned - base), axis=1)
    right = prior[0].right
    if right is None:
        right = np.arange(base.shape[1]) == prior[0].gold[:, None]
    gold = np.where(right, np.exp(base) - np.exp(aligned), 0).sum(axis=1)
    rows = []
    for metric, values in (("prior_kl", divergence), ("prior_gold", gold)):
        found = mean_interval(values, paired.groups, draws=bootstrap, seed=seed)
        rows.append(_line(paired, metric, "shift", found.value, found.low, found.high))
    return rows


def _line(paired: Paired, metric: str, part: str, value: float, low: float, high: float) -> dict[str, object]:
    return {
        "suite": paired.suite,
        "template": paired.template,
        "metric": metric,
        "part": part,
        "value": float(value),
        "low": float(low),
        "high": float(high),
        "n_items": len(paired.items),
        "n_groups": len(set(paired.groups)),
    }
