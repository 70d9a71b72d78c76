"""From the log-probabilities of an item's choices to what is measured on it.

Pure arrays: scoring fills them, the weight path interpolates them, imported logs
bring them along. Choices are padded with NaN where items have fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of

LOSS_SIGN = MappingProxyType(
    {
        "accuracy": 1.0,
        "accuracy_norm": 1.0,
        "probability": 1.0,
        "margin": 1.0,
        "nll": -1.0,
        "exact_match": 1.0,
    }
)
"""Sign that makes the tax positive for a loss: tax = sign * (base - aligned)."""

CHOICE_METRICS = ("accuracy", "accuracy_norm", "probability", "margin", "nll")
"""The metrics that `item_metrics` computes from choices' log-probabilities."""

HITS = frozenset({"accuracy", "accuracy_norm", "exact_match"})
"""Metrics that are right or wrong on each item, so that items are lost and won."""


def item_metrics(
    logp: np.ndarray,
    gold: np.ndarray,
    *,
    n_bytes: np.ndarray | None = None,
    metrics: Sequence[str] = CHOICE_METRICS,
) -> dict[str, np.ndarray]:
    """Every metric on every item, from the summed log-probabilities of its choices.

    ``accuracy`` is lm-eval's acc: arg max, the first of equals. ``accuracy_norm`` divides by
    the bytes of each choice first (acc_norm). ``probability`` is the softmax over the choices
    of the gold one: smooth, in 0..1, but blind to what no choice says. ``margin`` is gold
    minus best other, ``nll`` minus the gold choice's log-probability, both in nats.

    Args:
        logp: [items, choices] nats, summed over the choice's tokens; NaN past an item's last choice.
        gold: [items] index of the right choice.
        n_bytes: [items, choices] UTF-8 bytes of each choice; needed for ``accuracy_norm`` alone.
        metrics: which to compute, in order.

    Returns:
        {metric: [items] float64}.

    Raises:
        UsageError: unknown metric, shapes that disagree, a gold choice without a
            log-probability, or ``accuracy_norm`` without bytes.

    Example:
        >>> found = item_metrics(np.log([[0.5, 0.25]]), np.array([0]), metrics=["probability"])
        >>> found["probability"].round(3)
        array([0.667])

    References:
        lm-evaluation-harness, ``ConfigurableTask.process_results``.
    """
    for metric in metrics:
        one_of(metric, CHOICE_METRICS, what="metric")
    scores = np.asarray(logp, dtype=np.float64)
    gold = np.asarray(gold, dtype=np.int64)
    _check(scores, gold)
    rows = np.arange(len(gold))
    results = {}
    for metric in metrics:
        if metric == "accuracy":
            results[metric] = (_first_best(scores) == gold).astype(np.float64)
        elif metric == "accuracy_norm":
            results[metric] = (_first_best(scores / _bytes(n_bytes, scores)) == gold).astype(np.float64)
        elif metric == "probability":
            results[metric] = np.exp(scores[rows, gold] - log_sum_exp(scores))
        elif metric == "margin":
            results[metric] = scores[rows, gold] - best_other(scores, gold)
        else:
            results[metric] = -scores[rows, gold]
    return results


def best_other(logp: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The largest log-probability among the wrong choices of each item, [items] nats."""
    others = np.where(np.isnan(logp), -np.inf, logp)
    others[np.arange(len(gold)), gold] = -np.inf
    return others.max(axis=1)


def log_sum_exp(logp: np.ndarray) -> np.ndarray:
    """log of the sum of probabilities over each row's choices, [items] nats; NaN choices do not count."""
    present = np.where(np.isnan(logp), -np.inf, logp)
    top = present.max(axis=1)
    return top + np.log(np.exp(present - top[:, None]).sum(axis=1))


def _first_best(scores: np.ndarray) -> np.ndarray:
    return np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)


def _bytes(n_bytes: np.ndarray | None, scores: np.ndarray) -> np.ndarray:
    if n_bytes is None:
        raise UsageError("accuracy_norm divides by the bytes of each choice: pass n_bytes [items, choices].")
    sizes = np.asarray(n_bytes, dtype=np.float64)
    if sizes.shape != scores.shape:
        rows = [("logp", scores.shape), ("n_bytes", sizes.shape)]
        raise UsageError(explain("bytes and log-probabilities are not aligned.", rows))
    return np.where(sizes > 0, sizes, np.nan)


def _check(scores: np.ndarray, gold: np.ndarray) -> None:
    if scores.ndim != 2 or gold.shape != scores.shape[:1]:
        rows = [("logp", scores.shape), ("gold", gold.shape)]
        raise UsageError(explain("log-probabilities must be [items, choices] with one gold an item.", rows))
    out = (gold < 0) | (gold >= scores.shape[1])
    missing = out.copy()
    missing[~out] = np.isnan(scores[np.flatnonzero(~out), gold[~out]])
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        rows = [
            ("items", f"{int(missing.sum())} of {len(gold)}"),
            ("first", f"row {first}, gold {gold[first]}"),
        ]
        raise UsageError(explain("the gold choice has no log-probability.", rows))
