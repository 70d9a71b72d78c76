"""Attribution by the weight path: every suite's tax as a sum over components, heads, triples, items and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.analysis.attribution import Attribution
from taxlens.analysis.chain import ScoreMetric
from taxlens.analysis.contract import Contraction
from taxlens.analysis.job import Job, Settings
from taxlens.analysis.metrics import CHOICE_METRICS
from taxlens.analysis.profile import Walkability, walkability
from taxlens.analysis.quadrature import Rule, single
from taxlens.analysis.units import LEVELS, difference_of
from taxlens.analysis.walk import walk
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.activations.pair import ModelPair

METRICS = ("accuracy", "probability", "nll")
"""Metrics that are attributed unless others are named."""


def attribute(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    template: str = "plain",
    metrics: Sequence[str] = METRICS,
    levels: Sequence[str] = ("component", "singular"),
    tolerance: float = 0.01,
    max_gradients: int = 32,
    items: int | str = "all",
    functions: Mapping[str, ScoreMetric] | None = None,
    rules: Sequence[Rule] | None = None,
    tokens: bool = True,
    texts: Suite | None = None,
    perplexity: bool = True,
    batch_tokens: int = 1024,
    checkpoint: bool = False,
    bootstrap: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Attribution:
    """Attribute the tax of suites to the parts of the weight change, so that the parts sum to the measured tax.

    The weights are moved from base to aligned along a straight line, and at a few nodes the choices' scores are
    differentiated once, for all components, items and tokens together. Metrics follow by the chain rule. Effects
    are signed as the tax is: positive is loss. They sum to the tax up to the residual of `closure_frame`, which is
    shown and never spread. They are the Aumann-Shapley values of the components' changes: where components
    interact strongly they share differently from single grafts and restores.

    Args:
        pair: the two checkpoints; their weights are the same to the bit afterwards.
        suites: one suite or several; items without choices are passed over.
        template: "plain" or "chat": one prompt for both models (chat: the aligned model's template).
        metrics: "accuracy", "accuracy_norm", "probability", "margin", "nll", or names in `functions`.
        levels: "component" (always), "head", "neuron", "singular".
        tolerance: share of the tax by which effects may still change (L1 over components) from one nested rule to
            the next; half of it bounds the error of the predicted scores at the aligned end.
        max_gradients: most nodes; reaching it unclosed is reported, not hidden.
        items: "all", or how many items to draw (seeded) from each suite.
        functions: user metrics by name, see `chain.ScoreMetric`.
        rules: nodes to use instead of the nested ladder (the last is kept).
        tokens: keep effects by token.
        texts: texts whose perplexity along the path says whether it is fit to walk; by default the items' own
            prompts with their gold choices.
        perplexity: whether to take that perplexity (five forward passes over at most 64 texts).
        batch_tokens: most padded tokens in a batch.
        checkpoint: recompute each block in the backward pass, for prompts too long for the memory.
        bootstrap: group-bootstrap draws of the intervals.
        seed: of the draws.
        progress: told of every pass, with the current state of closure.

    Returns:
        The attribution, with its tables.

    Raises:
        UsageError: an unknown metric or level, or no suites.
        ItemError: a suite without choices.
        TaxlensError: a score that is not finite; the item is named.

    Example:
        >>> found = attribute(pair, facts, metrics=("accuracy", "probability"))          # doctest: +SKIP
        >>> found.to_frame().head(3)                                                     # doctest: +SKIP

    References:
        Aumann and Shapley 1974; integrated gradients, arXiv 1703.01365; loss change allocation, arXiv 1909.01440;
        ExPLAIND, arXiv 2505.20076.
    """
    asked = _suites(suites)
    functions = dict(functions or {})
    for metric in metrics:
        one_of(metric, (*CHOICE_METRICS, *functions), what="metric")
    for level in levels:
        one_of(level, LEVELS, what="level")
    difference = difference_of(pair)
    settings = Settings(
        template, tuple(metrics), functions, tolerance, max_gradients, rules, batch_tokens, checkpoint, progress
    )
    chosen = [_draw(suite, items, seed) for suite in asked]
    fit: Walkability | None = None
    with walk(pair) as path:
        job = Job(pair, path, Contraction(path.model, difference, tuple(levels), keep_tokens=tokens), settings)
        found = {suite.name: job.suite(suite) for suite in chosen}
        if perplexity and not settings.first_order:
            fit = walkability(path, pair.base.tokenizer, [texts] if texts is not None else chosen)
    return Attribution(
        template=template,
        suites=found,
        fallbacks=job.contraction.fallbacks,
        tolerance=tolerance,
        draws=bootstrap,
        seed=seed,
        method="one_gradient" if settings.first_order else "path",
        walkability=fit,
    )


def gradient_effects(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    t: float = 1.0,
    metrics: Sequence[str] = ("probability", "nll"),
    levels: Sequence[str] = ("component", "singular"),
    **options: Any,
) -> Attribution:
    """Return the first-order estimate of the same effects, from one gradient at t (1: at the aligned weights).

    The baseline that path attribution is compared with. It does not close, and where a metric saturates at t its
    gradient vanishes. Accuracy has no gradient.

    Args:
        pair: the two checkpoints.
        suites: one suite or several.
        t: where on the path the gradient is taken, in 0..1.
        metrics: "probability", "margin" or "nll".
        levels: as for `attribute`.
        options: as for `attribute`.
    """
    for metric in metrics:
        one_of(metric, ("probability", "margin", "nll"), what="metric with a gradient")
    if not 0 <= t <= 1:
        raise UsageError(explain("a point on the path lies between 0 and 1.", [("t", t)]))
    return attribute(pair, suites, metrics=metrics, levels=levels, rules=[single(t)], **options)


def _suites(suites: Suite | Sequence[Suite]) -> list[Suite]:
    asked = [suites] if hasattr(suites, "items") else list(suites)  # type: ignore[arg-type]
    if not asked:
        raise UsageError(explain("no suite to attribute.", (), "name at least one suite."))
    return asked  # type: ignore[return-value]


def _draw(suite: Suite, items: int | str, seed: int) -> Suite:
    if items == "all" or int(items) >= len(suite):
        return suite
    chosen = np.random.default_rng(seed).choice(len(suite), size=int(items), replace=False)
    return suite.subset(np.sort(chosen))
