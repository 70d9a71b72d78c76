"""Attribution by the weight path: every suite's tax as a sum over components, heads, triples, items and tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.tokens import Row, encode_suite
from taxlens.analysis.adaptive import Choices, Walked, Walker
from taxlens.analysis.attribution import Attribution, SuiteEffects
from taxlens.analysis.chain import ScoreMetric
from taxlens.analysis.contract import Contraction
from taxlens.analysis.forward import position_limit
from taxlens.analysis.gather import gather
from taxlens.analysis.metrics import CHOICE_METRICS
from taxlens.analysis.passes import Shard, differentiate, score_shard, shard_of
from taxlens.analysis.quadrature import Rule, single
from taxlens.analysis.units import LEVELS, difference_of
from taxlens.analysis.walk import Walk, walk
from taxlens.core.errors import ItemError, UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.activations.pair import ModelPair

MEMORY = 1 << 30
"""Bytes of tallies that a shard of items may hold; larger suites are walked shard by shard."""

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
    batch_tokens: int = 1024,
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
        batch_tokens: most padded tokens in a batch.
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
    found: dict[str, SuiteEffects] = {}
    with walk(pair) as path:
        contraction = Contraction(path.model, difference, tuple(levels), keep_tokens=tokens)
        job = _Job(pair, path, contraction, template, tuple(metrics), functions, batch_tokens, progress)
        for suite in asked:
            chosen = _draw(suite, items, seed)
            found[suite.name] = job.suite(chosen, tolerance=tolerance, max_gradients=max_gradients, rules=rules)
    one = rules is not None and len(rules) == 1 and len(rules[0].nodes) == 1
    method = "one_gradient" if one else "path"
    return Attribution(template, found, contraction.fallbacks, tolerance, bootstrap, seed, method)


class _Job:
    """One attribution under way: a walked model, its hooks, and what is asked of every suite."""

    def __init__(
        self,
        pair: ModelPair,
        path: Walk,
        contraction: Contraction,
        template: str,
        metrics: tuple[str, ...],
        functions: dict[str, ScoreMetric],
        batch_tokens: int,
        progress: Progress,
    ) -> None:
        self.pair, self.path, self.contraction = pair, path, contraction
        self.template, self.metrics, self.functions = template, metrics, functions
        self.batch_tokens, self.progress = batch_tokens, progress

    def suite(
        self, suite: Suite, *, tolerance: float, max_gradients: int, rules: Sequence[Rule] | None
    ) -> SuiteEffects:
        """Walk a suite shard by shard and put the shards' effects together."""
        started = time.perf_counter()
        rows = self.rows(suite)
        pieces: list[tuple[Walked, Choices, Shard]] = []
        vocabulary = int(self.path.model.config.get_text_config().vocab_size)
        for part in self._shards(rows, max_gradients):
            shard = shard_of(part, batch_tokens=self.batch_tokens, vocabulary=vocabulary)
            walked, choices = self._walk(shard, suite, tolerance, max_gradients, rules)
            pieces.append((walked, choices, shard))
        metrics = {name: self.functions.get(name, name) for name in self.metrics}
        first_order = rules is not None and len(rules) == 1 and len(rules[0].nodes) == 1
        seconds = time.perf_counter() - started
        return gather(suite, pieces, self.contraction.difference, metrics, first_order=first_order, seconds=seconds)

    def rows(self, suite: Suite) -> list[Row]:
        """A suite's choice rows."""
        limit = position_limit(self.path.model)
        rows = encode_suite(
            suite, self.pair.base.tokenizer, template=self.template, max_length=limit,
            chat_template=self.pair.aligned.chat_template if self.template == "chat" else None,
        )  # fmt: skip
        if not rows:
            raise ItemError(explain("no item of the suite has choices.", [("suite", suite.name)], "add choices."))
        return rows

    def _shards(self, rows: list[Row], max_gradients: int) -> list[list[Row]]:
        """Rows cut between items so that a shard's tallies fit the memory allowed."""
        columns = sum(self.contraction.layout.size(level) for level in self.contraction.levels)
        one = self.contraction.layout.size("component") if self.contraction.keep_tokens else 0
        shards: list[list[Row]] = [[]]
        used = 0
        for number, row in enumerate(rows):
            size = 4 * min(max_gradients, 15) * (columns + one * len(row.ids))
            first = number == 0 or rows[number - 1].item != row.item
            if first and used > MEMORY:
                shards.append([])
                used = 0
            shards[-1].append(row)
            used += size
        return shards

    def _walk(
        self, shard: Shard, suite: Suite, tolerance: float, max_gradients: int, rules: Sequence[Rule] | None
    ) -> tuple[Walked, Choices]:
        choices = choices_of(shard, suite)
        ends = tuple(score_shard(self.path.to(t), shard) for t in (0.0, 1.0))
        with self.contraction, self.progress.task(f"attribute {suite.name}", unit="gradients") as task:
            walker = Walker(
                lambda t: differentiate(self.path.to(t), shard, self.contraction),
                (ends[0], ends[1]), choices, self.metrics, self.functions, tolerance, max_gradients,
                note=lambda text: task.advance(1, note=text),
            )  # fmt: skip
            return walker.run(rules), choices


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
        pair, suites, metrics, levels: as for `attribute`.
        t: where on the path the gradient is taken, in 0..1.
        options: as for `attribute`.
    """
    for metric in metrics:
        one_of(metric, ("probability", "margin", "nll"), what="metric with a gradient")
    if not 0 <= t <= 1:
        raise UsageError(explain("a point on the path lies between 0 and 1.", [("t", t)]))
    return attribute(pair, suites, metrics=metrics, levels=levels, rules=[single(t)], **options)


def choices_of(shard: Shard, suite: Suite) -> Choices:
    """Return which rows of a shard are whose choices, items counted from the shard's first."""
    items = sorted({row.item for row in shard.rows})
    place = {item: n for n, item in enumerate(items)}
    item = np.array([place[row.item] for row in shard.rows])
    choice = np.array([row.choice for row in shard.rows])
    n_bytes = np.full((len(items), int(choice.max()) + 1), np.nan)
    for row in shard.rows:
        n_bytes[place[row.item], row.choice] = len(suite.items[row.item].choices[row.choice].encode("utf-8"))
    gold = np.array([suite.items[i].gold for i in items], dtype=np.int64)
    return Choices(item, choice, gold, n_bytes)


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
