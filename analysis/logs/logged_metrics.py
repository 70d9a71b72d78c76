"""The metrics that harnesses log: what they are called here, how they add up, and in which direction they lose.

Most are the mean of one number an item. Some are a ratio of sums over all items (F1 of a class, accuracy by
instruction, perplexity by word), which no mean of items gives. Such a metric is written down item by item as its value
plus the item's influence on it, x = R + (n - R d) / mean(d) with R = sum(n) / sum(d): the mean of x is R to the last digit,
and resampling x gives the interval of the ratio to first order (the delta method). A perplexity exp(R) is carried
through in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taxlens.analysis.scoring.metrics import METRICS as REGISTERED
from taxlens.analysis.scoring.metrics import Metric, register
from taxlens.core.stats.ratios import ratio_influence


@dataclass(frozen=True, slots=True)
class LoggedMetric:
    """One metric of a log.

    Attributes:
        name: what it is called here.
        unit: of its value: ``points`` (0..1, shown as 0..100), ``nats``, ``bits``, or words.
        sign: 1 where larger is better, -1 where smaller is: the tax is sign * (base - aligned).
        hit: whether an item is right (1) or wrong (0).
        form: ``mean`` of one number an item, ``ratio`` of sums, or ``perplexity``: exp of minus a ratio of sums.
    """

    name: str
    unit: str = "points"
    sign: int = 1
    hit: bool = False
    form: str = "mean"


_RIGHT_OR_WRONG = {
    "acc": "accuracy", "acc_norm": "accuracy_norm", "acc_bytes": "accuracy_bytes", "acc_mutual_info": "accuracy_mutual_info",
    "exact_match": "exact_match", "em": "exact_match", "exact": "exact_match", "pass@1": "pass_at_1", "pass_at_1": "pass_at_1",
    "prompt_level_strict_acc": "prompt_level_strict", "prompt_level_loose_acc": "prompt_level_loose",
    "prompt_level_strict": "prompt_level_strict", "prompt_level_loose": "prompt_level_loose",
    "acc_raw": "accuracy", "acc_per_char": "accuracy_norm", "acc_per_token": "accuracy_per_token", "acc_per_byte": "accuracy_bytes",
    "acc_uncond": "accuracy_mutual_info", "math_verify": "math_verify", "extractive_match": "extractive_match",
    "quasi_exact_match": "quasi_exact_match", "prefix_exact_match": "prefix_exact_match", "mcq_acc": "accuracy",
    "loglikelihood_acc": "accuracy", "loglikelihood_acc_norm": "accuracy_norm", "loglikelihood_acc_norm_nospace": "accuracy_norm",
}  # fmt: skip
METRICS: dict[str, LoggedMetric] = {
    **{theirs: LoggedMetric(ours, hit=True) for theirs, ours in _RIGHT_OR_WRONG.items()},
    "mc1": LoggedMetric("accuracy", hit=True),
    "mc2": LoggedMetric("mc2"),
    "f1": LoggedMetric("f1"),
    "f1_class": LoggedMetric("f1", form="ratio"),
    "inst_level_strict_acc": LoggedMetric("instruction_level_strict", form="ratio"),
    "inst_level_loose_acc": LoggedMetric("instruction_level_loose", form="ratio"),
    "inst_level_strict": LoggedMetric("instruction_level_strict", form="ratio"),
    "inst_level_loose": LoggedMetric("instruction_level_loose", form="ratio"),
    "word_perplexity": LoggedMetric("word_perplexity", unit="perplexity", sign=-1, form="perplexity"),
    "byte_perplexity": LoggedMetric("byte_perplexity", unit="perplexity", sign=-1, form="perplexity"),
    "token_perplexity": LoggedMetric("token_perplexity", unit="perplexity", sign=-1, form="perplexity"),
    "bits_per_byte": LoggedMetric("bits_per_byte", unit="bits", sign=-1, form="ratio"),
    "perplexity": LoggedMetric("perplexity", unit="perplexity", sign=-1, form="perplexity"),
    "ppl": LoggedMetric("perplexity", unit="perplexity", sign=-1, form="perplexity"),
    "likelihood_diff": LoggedMetric("likelihood_difference", unit="nats", sign=-1),
    "pct_stereotype": LoggedMetric("stereotype_share", sign=-1),
    "brier_score": LoggedMetric("brier_score", sign=-1),
    "brier_score_class": LoggedMetric("brier_score", sign=-1),
}
"""The harnesses' own names -> the metric. Metrics that are not here are read as a plain mean in the log's own scale."""


def known_metric(logged: LoggedMetric) -> Metric:
    """The registered metric of a logged one; it is registered where it is met for the first time.

    A metric in the log's own scale is shown as it is, and no claim of equivalence is made of it.
    """
    if logged.name in REGISTERED:
        return REGISTERED[logged.name]
    points = logged.unit == "points"
    return register(
        Metric(
            logged.name,
            "as the harness logged it",
            unit=logged.unit,
            scale=100.0 if points else 1.0,
            digits=1 if points else 3,
            sign=float(logged.sign),
            hit=logged.hit,
        )
    )


CORPUS = ("mcc", "bleu", "chrf", "chrf++", "ter", "spearman", "pearson", "matthews_corrcoef")
"""Metrics that exist for a whole corpus alone: they are named in notes, and not read."""


def influence(metric: LoggedMetric, values: Sequence[float | tuple[float, float]]) -> np.ndarray:
    """One number an item whose mean is the metric's own aggregate, [items] float64.

    Args:
        metric: how the values add up.
        values: a number an item; of a ratio or perplexity (numerator, denominator), the numerator of a perplexity
            being a log-probability.
    """
    if metric.form == "mean":
        return np.asarray(values, dtype=np.float64)
    pairs = np.asarray(values, dtype=np.float64)
    top, bottom = pairs[:, 0], pairs[:, 1]
    if metric.form == "perplexity":
        top = -top
    found = ratio_influence(top, bottom)
    if metric.form == "ratio":
        return found
    ratio = top.sum() / bottom.sum()
    return np.exp(ratio) * (1 + found - ratio)


def common_metrics(base: Mapping[str, LoggedMetric], aligned: Mapping[str, LoggedMetric]) -> dict[str, LoggedMetric]:
    """The metrics that both logs have, in base's order."""
    return {
        name: metric for name, metric in base.items() if name in aligned and _scale(aligned[name]) == _scale(metric)
    }


def _scale(metric: LoggedMetric) -> tuple[str, str, int, str]:
    return metric.name, metric.unit, metric.sign, metric.form


for _metric in METRICS.values():
    known_metric(_metric)
