"""Metrics: everything that is known of each, in one object and one registry.

From the log-probabilities of an item's choices to what is measured on it, in pure arrays: scoring fills them, the weight
path interpolates them, imported logs bring them along. Choices are padded with NaN where items have fewer. A metric that
is registered here is known to the tax, the attribution, the figures, the report and the config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of

Value = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(scores [..., items, choices] in nats with NaN for no choice, gold [items]) -> the metric [..., items]."""

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""The same arguments -> the metric's derivative by each score, the shape of the scores."""

CHAINS = ("gradient", "linear", "best_other", "crossings", "logits")
"""How effects are chained: the gradient integrated along the path; a constant gradient, exactly; split where the best
other choice changes; the items that flip, shared at the crossing; a function of the logits, walked on its own."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric.

    Args:
        name: its name in tables and configs.
        meaning: what it is, in a sentence.
        words: as a paper writes it; by default its name.
        unit: that it is shown in.
        scale: from the tables' numbers to that unit.
        digits: after the point, where it is scaled.
        sign: 1 where a fall is a loss, -1 where a rise is: tax = sign (base - aligned).
        margin: half width of what counts as no tax, in the tables' numbers; None: no such claim is made. Metrics in
            points have the run's margin instead.
        hit: whether each item is right or wrong, so that items are lost and won.
        value: from the scores of an item's choices; None: it is measured elsewhere (generated, logged, or of logits).
        gradient: by the scores; None: there is none.
        chain: how the weight path makes effects of it (`CHAINS`); blank: it is only measured.
        by_bytes: scores are divided by the choices' bytes first.
        cites: where it is from.

    Example:
        >>> bits = Metric("bits", "surprise of the right choice", unit="bits", scale=1.0, sign=-1.0)
        >>> bits.shown(2.5)
        '2.5'
    """

    name: str
    meaning: str
    words: str = ""
    unit: str = "points"
    scale: float = 100.0
    digits: int = 1
    sign: float = 1.0
    margin: float | None = None
    hit: bool = False
    value: Value | None = None
    gradient: Gradient | None = None
    chain: str = ""
    by_bytes: bool = False
    cites: tuple[str, ...] = ()

    def shown(self, value: float, *, sign: bool = False) -> str:
        """A value of the tables in the metric's unit, without the unit; never "-0.0"."""
        form = f".{self.digits}f" if self.scale != 1 else "+.3f" if sign else ".3g"
        said = f"{value * self.scale:{'+' if sign and self.scale != 1 else ''}{form}}"
        return said.lstrip("-") if not sign and float(said) == 0 else said

    def equivalence(self, margin: float) -> float | None:
        """Half width of what counts as no tax: the run's margin for metrics in points, else the metric's own."""
        return margin if self.unit == "points" else self.margin


METRICS: dict[str, Metric] = {}
"""Every metric by name."""


def register(metric: Metric) -> Metric:
    """Make a metric known to the whole package.

    Raises:
        UsageError: the name is taken, or what it declares does not fit together.
    """
    rows = [("metric", metric.name)]
    if metric.name in METRICS:
        raise UsageError(explain("a metric of this name is registered already.", rows, "take another name."))
    if metric.chain:
        one_of(metric.chain, CHAINS, what="chain rule")
    if metric.chain in ("gradient", "linear") and (metric.gradient is None or metric.value is None):
        fix = "give value and gradient, or leave chain blank: the metric is then only measured."
        raise UsageError(explain("a metric is chained from a value and a gradient.", rows, fix))
    METRICS[metric.name] = metric
    return metric


def metric_of(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        UsageError: there is none; those that exist are listed.
    """
    return METRICS[one_of(name, tuple(METRICS), what="metric")]


def shown_metric(name: str) -> Metric:
    """Return how a table's metric is shown: the registered one, or for a user's own function its numbers as they are."""
    return METRICS.get(name) or Metric(name, "a user's own function", unit="", scale=1.0)


def scored_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that come from the scores of choices."""
    return tuple(name for name, metric in METRICS.items() if metric.value is not None)


def chained_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that the weight path can attribute."""
    return tuple(name for name, metric in METRICS.items() if metric.chain)


def smooth_metrics() -> tuple[str, ...]:
    """Return the names of the metrics with a gradient by the scores."""
    return tuple(name for name, metric in METRICS.items() if metric.gradient is not None)


def main_metric(names: Iterable[str]) -> str:
    """Return the metric that a run is told in: probability, or the first named; blank where none is."""
    found = list(dict.fromkeys(names))
    return "probability" if "probability" in found else str(found[0]) if found else ""


def item_metrics(
    logp: np.ndarray,
    gold: np.ndarray,
    *,
    n_bytes: np.ndarray | None = None,
    metrics: Sequence[str] | None = None,
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
        metrics: which to compute, in order; by default `CHOICE_METRICS`.

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
    names = CHOICE_METRICS if metrics is None else tuple(metrics)
    for name in names:
        one_of(name, scored_metrics(), what="metric")
    scores = np.asarray(logp, dtype=np.float64)
    gold = np.asarray(gold, dtype=np.int64)
    _check(scores, gold)
    results = {}
    for name in names:
        metric = METRICS[name]
        table = scores / _bytes(n_bytes, scores, name) if metric.by_bytes else scores
        assert metric.value is not None
        results[name] = np.asarray(metric.value(table, gold), dtype=np.float64)
    return results


def best_other(logp: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The largest log-probability among the wrong choices of each item, [..., items] nats."""
    others = np.where(np.isnan(logp), -np.inf, logp)
    others[..., np.arange(len(gold)), gold] = -np.inf
    return others.max(axis=-1)


def log_sum_exp(logp: np.ndarray) -> np.ndarray:
    """log of the sum of probabilities over each row's choices, [..., items] nats; NaN choices do not count."""
    present = np.where(np.isnan(logp), -np.inf, logp)
    top = present.max(axis=-1)
    return top + np.log(np.exp(present - top[..., None]).sum(axis=-1))


def accuracy_value(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """1 where the gold choice has the highest score (the first of equals), else 0."""
    best = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=-1)
    return (best == gold).astype(np.float64)


def probability_value(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The gold choice's share of the choices' probability, 0..1."""
    return np.exp(_gold(scores, gold) - log_sum_exp(scores))


def margin_value(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The gold choice's log-probability minus the best other's, nats."""
    return _gold(scores, gold) - best_other(scores, gold)


def nll_value(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Minus the gold choice's log-probability, nats."""
    return -_gold(scores, gold)


def probability_gradient(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Gradient of the gold choice's softmax probability, the shape of `scores`."""
    present = np.where(np.isnan(scores), -np.inf, scores)
    p = np.exp(present - present.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    right = np.zeros(scores.shape[-2:])
    right[np.arange(len(gold)), gold] = 1.0
    return (p * right).sum(axis=-1, keepdims=True) * (right - p)


def margin_gradient(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Gradient of gold minus best other, the shape of `scores`."""
    right = np.zeros(scores.shape[-2:])
    right[np.arange(len(gold)), gold] = 1.0
    others = np.where(np.isnan(scores) | (right > 0), -np.inf, scores)
    best = np.arange(scores.shape[-1]) == np.argmax(others, axis=-1)[..., None]
    return right - best


def nll_gradient(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Gradient of minus the gold score, the shape of `scores`."""
    out = np.zeros(scores.shape)
    out[..., np.arange(len(gold)), gold] = -1.0
    return out


def _gold(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return scores[..., np.arange(len(gold)), gold]


def _bytes(n_bytes: np.ndarray | None, scores: np.ndarray, name: str) -> np.ndarray:
    if n_bytes is None:
        raise UsageError(f"{name} divides by the bytes of each choice: pass n_bytes [items, choices].")
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


_LM_EVAL = ("lm-evaluation-harness, ConfigurableTask.process_results",)
_IFEVAL = ("Zhou et al. 2023, arXiv 2311.07911",)
_PERPLEXITY = {"unit": "perplexity", "scale": 1.0, "digits": 3, "sign": -1.0}
_NATS = {"unit": "nats", "scale": 1.0, "digits": 2}

for _metric in (
    Metric(
        "accuracy", "share of items whose right choice has the highest log-probability (lm-eval's acc)", hit=True,
        value=accuracy_value, chain="crossings", cites=_LM_EVAL,
    ),
    Metric(
        "accuracy_norm", "the same with log-probabilities divided by the choices' bytes (lm-eval's acc_norm)", hit=True,
        value=accuracy_value, chain="crossings", by_bytes=True, cites=_LM_EVAL,
    ),
    Metric(
        "probability", "softmax over the choices' log-probabilities of the right one",
        value=probability_value, gradient=probability_gradient, chain="gradient",
    ),
    Metric(
        "margin", "log-probability of the right choice minus the best other's, nats", **_NATS,
        value=margin_value, gradient=margin_gradient, chain="best_other",
    ),
    Metric(
        "nll", "minus the right choice's log-probability, nats", words="NLL", **_NATS, sign=-1.0,
        value=nll_value, gradient=nll_gradient, chain="linear",
    ),
    Metric(
        "kl", "KL divergence from the base at the right choice's tokens, nats a token", words="KL", **_NATS, sign=-1.0,
        chain="logits",
    ),
    Metric("exact_match", "share of prompts whose generated answer is right", hit=True),
    Metric("refused", "share of prompts whose generated answer refuses"),
    Metric("accuracy_bytes", "the right choice has the highest log-probability a byte", hit=True, cites=_LM_EVAL),
    Metric("accuracy_mutual_info", "the right choice gains most from its prompt", hit=True, cites=_LM_EVAL),
    Metric("accuracy_per_token", "the right choice has the highest log-probability a token", hit=True),
    Metric("mc2", "share of the choices' probability on all right ones", cites=("Lin et al. 2022",)),
    Metric("f1", "overlap of answer and right answer, or F1 of the class 1"),
    Metric("pass_at_1", "the generated program passes its tests", hit=True),
    Metric("prompt_level_strict", "every instruction of a prompt is followed", hit=True, cites=_IFEVAL),
    Metric("prompt_level_loose", "every instruction of a prompt is followed in a loose reading", hit=True, cites=_IFEVAL),
    Metric("instruction_level_strict", "an instruction is followed", cites=_IFEVAL),
    Metric("instruction_level_loose", "an instruction is followed in a loose reading", cites=_IFEVAL),
    Metric("word_perplexity", "perplexity a word of whole texts", **_PERPLEXITY, margin=0.5),
    Metric("byte_perplexity", "perplexity a byte of whole texts", **_PERPLEXITY, margin=0.02),
    Metric("token_perplexity", "perplexity a token of whole texts", **_PERPLEXITY, margin=0.2),
    Metric("bits_per_byte", "bits a byte of whole texts", unit="bits", scale=1.0, digits=3, sign=-1.0, margin=0.02),
    Metric(
        "likelihood_difference", "distance of two sentences' log-probabilities, nats", unit="nats", scale=1.0, digits=3,
        sign=-1.0, margin=0.1,
    ),
    Metric("stereotype_share", "the stereotyped sentence is the likelier one", sign=-1.0),
    Metric("brier_score", "squared distance of the choices' probabilities from the right answer", sign=-1.0),
    Metric("prior_kl", "KL divergence between the models' priors over the choices, nats", words="prior KL", **_NATS),
    Metric("perplexity", "exponential of the mean nats a token", unit="per token", scale=1.0, sign=-1.0, margin=0.2),
):  # fmt: skip
    register(_metric)

CHOICE_METRICS = ("accuracy", "accuracy_norm", "probability", "margin", "nll")
"""Metrics of choices that are computed unless others are named."""
