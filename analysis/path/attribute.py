"""Attribution by the weight path: every suite's tax as a sum over components, heads, triples, items and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taxlens.activations.items.gold import check_one_right
from taxlens.activations.items.sampling import at_most
from taxlens.analysis.path.attribution import Attribution
from taxlens.analysis.path.barrier import walkability
from taxlens.analysis.path.chain_rule import ScoreMetric, not_chained
from taxlens.analysis.path.engine import NodeTap, PathSettings, opened
from taxlens.analysis.path.logit_metrics import KL, LogitMetric, logit_effects
from taxlens.analysis.path.quadrature import QuadratureRule, single
from taxlens.analysis.scoring.metrics import metric_of, smooth_metrics
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.vocabularies import LEVELS

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair

ATTRIBUTED = ("accuracy", "probability", "nll")
"""Metrics that are attributed unless others are named."""


def attribute(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    template: str = "plain",
    metrics: Sequence[str] = ATTRIBUTED,
    levels: Sequence[str] = ("component", "head", "singular"),
    tolerance: float = 0.01,
    max_gradients: int = 32,
    items: int | str = "all",
    functions: Mapping[str, ScoreMetric | LogitMetric] | None = None,
    rules: Sequence[QuadratureRule] | None = None,
    tokens: bool = True,
    neurons: int = 32,
    texts: Suite | None = None,
    perplexity: bool = True,
    batch_tokens: int = 1024,
    recompute: bool = False,
    bootstrap: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
    tap: NodeTap | None = None,
    selection: bool = True,
) -> Attribution:
    """Attribute the tax of suites to the parts of the weight change, so that the parts sum to the measured tax.

    The weights move from base to aligned along a straight line; at a few nodes the choices' scores are differentiated
    once, for all components, items and tokens, and metrics follow by the chain rule. Positive is loss. Effects sum
    to the tax up to the residual of `closure_frame`, which is never spread. They are the Aumann-Shapley values of
    the changes: where components interact they share differently from single grafts and restores.

    Args:
        pair: the two checkpoints; left as they are, to the bit.
        suites: one suite or several; items without choices are passed over.
        template: "plain" or "chat": one prompt for both models (chat: the aligned model's template).
        metrics: "accuracy", "accuracy_norm", "probability", "margin", "nll"; "kl" (to the base, at the gold choice's
            tokens); or names in `functions`.
        levels: "component" (always), "head", "neuron", "singular".
        tolerance: share of the tax by which effects may change (L1 over components) from one nested rule to the
            next; half of it bounds the error of the scores predicted at the aligned end.
        max_gradients: most nodes; reaching it unclosed is reported.
        items: "all", or how many of each suite, spread over its groups (seeded).
        functions: user metrics by name: of the choices' scores (`chain.ScoreMetric`; from the same gradients) or of
            the logits (`logit_metrics.LogitMetric`; each walked on its own, by nested quadrature of the metric itself).
        rules: nodes to use instead of the nested ladder (the last is kept).
        tokens: keep effects by token.
        neurons: at level "neuron", how many of each component are kept; the others are its row "L.mlp.rest".
        texts: what perplexity along the path is taken on; by default the items' prompts with their gold choices.
        perplexity: whether to take it.
        batch_tokens: most padded tokens in a batch.
        recompute: compute each block again in the backward pass, for prompts too long for the memory.
        selection: let the choice of experts change along the path too (row `L.selection`), so that the account closes.
        bootstrap, seed: group-bootstrap draws of the intervals, and their seed.
        progress, tap: told of every rule, with the state of closure; looks on at every node of the walk.

    Raises:
        UsageError: an unknown metric or level, or no suites.
        ItemError: a suite without choices.
        TaxlensError: a score that is not finite; the item is named.

    Example:
        >>> attribute(pair, facts).to_frame().head(3)                                    # doctest: +SKIP

    References:
        Aumann and Shapley 1974; arXiv 1703.01365; loss change allocation, 1909.01440; ExPLAIND, 2505.20076.
    """
    of_scores, of_logits = _checked(metrics, levels, functions)
    kept = tuple(metric for metric in metrics if metric not in of_logits)
    settings = PathSettings(
        template, kept, of_scores, tolerance, max_gradients, rules, batch_tokens, recompute, neurons, progress, tap, selection
    )  # fmt: skip
    chosen = [at_most(suite, items, seed=seed) for suite in _suites(suites)]
    fit = None
    with opened(pair, levels, settings, keep_tokens=tokens) as job:
        found = [{suite.name: job.suite(suite) for suite in chosen}] if kept else []
        found += [logit_effects(job, chosen, name, metric) for name, metric in of_logits.items()]
        if perplexity and not settings.first_order:
            fit = walkability(job.path, pair.base.tokenizer, [texts] if texts is not None else chosen)
    more = (job.contraction.fallbacks, tolerance, bootstrap, seed, "one_gradient" if settings.first_order else "path")
    return Attribution(template, found[0], *more, fit, tuple(found[1:]))


def gradient_effects(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    t: float = 1.0,
    metrics: Sequence[str] = ("probability", "nll"),
    levels: Sequence[str] = ("component", "head", "singular"),
    **options: Any,
) -> Attribution:
    """Return the first-order estimate of the same effects, from one gradient at t (1: at the aligned weights).

    The baseline that path attribution is compared with. It does not close, and where a metric saturates at t its
    gradient vanishes. Accuracy has no gradient.

    Args:
        pair: the two checkpoints.
        suites: one suite or several.
        t: where on the path the gradient is taken, in 0..1.
        metrics: those with a gradient ("probability", "margin", "nll").
        levels: as for `attribute`.
        options: as for `attribute`.
    """
    for metric in metrics:
        one_of(metric, smooth_metrics(), what="metric with a gradient")
    if not 0 <= t <= 1:
        raise UsageError(explain("a point on the path lies between 0 and 1.", [("t", t)]))
    return attribute(pair, suites, metrics=metrics, levels=levels, rules=[single(t)], **options)


def _checked(
    metrics: Sequence[str], levels: Sequence[str], functions: Mapping[str, ScoreMetric | LogitMetric] | None
) -> tuple[dict[str, ScoreMetric], dict[str, LogitMetric]]:
    """The user's metrics of the scores, and the metrics of the logits that are asked for, by name."""
    named: dict[str, ScoreMetric | LogitMetric] = {"kl": KL} | dict(functions or {})
    if not metrics:
        raise UsageError(explain("no metric to attribute.", (), "name at least one metric."))
    for metric in metrics:
        if metric in named or metric_of(metric).chain:
            continue
        raise UsageError(not_chained(metric_of(metric)))
    for level in levels:
        one_of(level, LEVELS, what="level")
    of_scores = {name: one for name, one in named.items() if isinstance(one, ScoreMetric)}
    return of_scores, {name: one for name in metrics if isinstance(one := named.get(name), LogitMetric)}


def _suites(suites: Suite | Sequence[Suite]) -> list[Suite]:
    asked = [suites] if hasattr(suites, "items") else list(suites)  # type: ignore[arg-type]
    if not asked:
        raise UsageError(explain("no suite to attribute.", (), "name at least one suite."))
    for suite in asked:
        check_one_right(suite)  # type: ignore[arg-type]
    return asked  # type: ignore[return-value]
