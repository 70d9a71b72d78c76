"""One attribution under way: a walked model, its hooks, and what is asked of every suite."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from taxlens.activations.items.out_of_memory import until_it_fits
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.prompts import as_asked, asked_apart, one_prompting
from taxlens.analysis.path.adaptive_quadrature import Choices, Walked, Walker
from taxlens.analysis.path.assembly import effects_of, merged
from taxlens.analysis.path.attribution import SuiteEffects
from taxlens.analysis.path.beyond.added_tokens import UNIT as ADDED_TOKENS
from taxlens.analysis.path.beyond.added_tokens import weighted_tokens
from taxlens.analysis.path.beyond.expert_selection import ExpertSelection, selection_of, selection_units
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import (
    ItemShard,
    RowScore,
    differentiate,
    log_probability,
    score_shard,
    shard_of,
)
from taxlens.analysis.path.quadrature import QuadratureRule
from taxlens.analysis.path.refinement import finer_rules, unresolved, with_items
from taxlens.analysis.path.top_neurons import with_top_neurons
from taxlens.analysis.weights.path_weights import Walk, walk
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import ItemError, explain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

ROUNDING, HALF_ROUNDING = 1e-4, 0.02
"""Largest difference in nats of a score that is rounding: in float32 and wider, and in half precision."""

MEMORY = 1 << 30
"""Bytes of tallies that a shard of items may hold; larger suites are walked shard by shard."""


class NodeTap(Protocol):
    """What looks on while a suite is walked: at every node and at both ends, and at what the walk found."""

    def row_bytes(self, row: Row, nodes: int) -> int:
        """Bytes that it keeps for a row while `nodes` nodes are walked."""
        ...

    def watching(self, path: Walk, shard: ItemShard, contraction: Contraction) -> AbstractContextManager[None]:
        """A block within which it sees every pass over a shard; `path.t` says where the weights are."""
        ...

    def take(self, found: Walked, choices: Choices, shard: ItemShard, suite: Suite) -> None:
        """What a shard's walk found; a later walk of the same items replaces it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PathSettings:
    """What an attribution is asked to do; the fields are `attribute`'s arguments."""

    template: str = "plain"
    metrics: tuple[str, ...] = ("accuracy", "probability", "nll")
    functions: Mapping[str, ScoreMetric] = field(default_factory=dict)
    tolerance: float = 0.01
    max_gradients: int = 32
    rules: Sequence[QuadratureRule] | None = None
    batch_tokens: int = 1024
    checkpoint: bool = False
    neurons: int = 64
    progress: Progress = SILENT
    tap: NodeTap | None = None
    selection: bool = True

    @property
    def first_order(self) -> bool:
        """Whether a single node is asked for: one gradient, no path."""
        return self.rules is not None and len(self.rules) == 1 and len(self.rules[0].nodes) == 1

    def named(self) -> dict[str, str | ScoreMetric]:
        """Metrics by name, user metrics as themselves."""
        return {name: self.functions.get(name, name) for name in self.metrics}


@dataclass(slots=True, eq=False)
class PathAttribution:
    """Walks suites over one pair, one model and one set of hooks.

    Args:
        pair: the two checkpoints.
        path: the walked model.
        contraction: its hooks.
        settings: what is asked.
        selection: the experts that the two models choose; None for models without experts.
    """

    pair: ModelPair
    path: Walk
    contraction: Contraction
    settings: PathSettings
    selection: ExpertSelection | None = None

    def suite(self, suite: Suite) -> SuiteEffects:
        """Walk a suite shard by shard and put the shards' effects together."""
        tap, most = self.settings.tap, min(self.settings.max_gradients, 15)
        beside = (lambda row: 0) if tap is None else partial(tap.row_bytes, nodes=most)
        return self.finished([self.resolved(rows, suite) for rows in self.shards(self.rows(suite), beside=beside)])

    def resolved(self, rows: list[Row], suite: Suite) -> SuiteEffects:
        """Walk a shard, and the few items that it leaves unresolved once more, by finer rules."""
        asked = self.settings
        found = self._walked_rows(rows, suite, asked.rules)
        places = unresolved(found, asked.tolerance)
        finer = [] if asked.rules else finer_rules(found.gradients, asked.max_gradients)
        if not len(places) or not finer:
            return found
        items = np.array(sorted({row.item for row in rows}))[places]
        few = [row for row in rows if row.item in items]
        return with_items(found, self._walked_rows(few, suite, finer), places)

    def _walked_rows(self, rows: list[Row], suite: Suite, rules: Sequence[QuadratureRule] | None) -> SuiteEffects:
        started = time.perf_counter()
        shard = self.shard(rows, suite)
        found = self.walked(shard, choices_of(shard, suite), suite, log_probability, rules=rules)
        return found(time.perf_counter() - started)

    def finished(self, parts: Sequence[SuiteEffects]) -> SuiteEffects:
        """The shards of a suite together: the largest neurons alone and the others as one, every token with its text."""
        return self.worded(with_top_neurons(merged(parts), self.settings.neurons))

    def worded(self, found: SuiteEffects) -> SuiteEffects:
        """The same effects, with the text of every token."""
        if found.tokens is None:
            return found
        every = max((self.pair.aligned.tokenizer, self.pair.base.tokenizer), key=len)  # one vocabulary holds the other
        words = {int(i): every.decode([int(i)]) for i in np.unique(found.tokens.ids)}
        return dataclasses.replace(found, tokens=dataclasses.replace(found.tokens, words=words))

    def rows(self, suite: Suite) -> list[Row]:
        """A suite's choice rows; one prompt for both models.

        Raises:
            ItemError: no item has choices.
        """
        rows = one_prompting(self.pair, suite, self.settings.template).rows(suite)
        if not rows:
            raise ItemError(explain("no item of the suite has choices.", [("suite", suite.name)], "add choices."))
        return rows

    def shard(self, rows: Sequence[Row], suite: Suite) -> ItemShard:
        """Rows of a suite with their batches."""
        names = [item.id for item in suite.items]
        return shard_of(self.path.model, rows, batch_tokens=self.settings.batch_tokens, names=names)

    def shards(
        self, rows: list[Row], *, beside: Callable[[Row], int] = lambda row: 0, memory: int | None = None
    ) -> list[list[Row]]:
        """Rows cut between items so that a shard's tallies, and the bytes `beside` them, fit the memory allowed.

        The cut follows from the rows and the units alone, whoever walks the shards.
        """
        memory = MEMORY if memory is None else memory
        columns = sum(self.contraction.layout.size(level) for level in self.contraction.levels)
        one = self.contraction.layout.size("component") if self.contraction.keep_tokens else 0
        shards: list[list[Row]] = [[]]
        used = 0
        for number, row in enumerate(rows):
            first = number == 0 or rows[number - 1].item != row.item
            if first and used > memory:
                shards.append([])
                used = 0
            shards[-1].append(row)
            used += 4 * min(self.settings.max_gradients, 15) * (columns + one * len(row.ids)) + beside(row)
        return shards

    def walked(
        self,
        shard: ItemShard,
        choices: Choices,
        suite: Suite,
        score: RowScore,
        *,
        rules: Sequence[QuadratureRule] | None = None,
    ) -> Any:
        """Walk one shard; returns a function from seconds spent to its effects."""
        asked = self.settings
        tap = asked.tap if score is log_probability else None
        watched = nullcontext() if tap is None else tap.watching(self.path, shard, self.contraction)
        name = f"attribute {suite.name}"
        shown = asked.progress.task(name, total=len(shard.rows), unit="rows")
        experts = self.selection
        chosen = nullcontext() if experts is None else experts.open()
        with watched, chosen, self.contraction, checkpointed(self.path.model, asked.checkpoint), shown as task:
            ends = [score_shard(self.path.to(t), shard, score=score) for t in (0.0, 1.0)]

            batches = [shard]  # the same rows in smaller batches, where memory runs out

            def smaller() -> bool:
                size = max(bundle.ids.numel() for bundle in batches[0].bundles)
                if all(len(bundle.ids) < 2 for bundle in batches[0].bundles):
                    return False
                model, rows, names = self.path.model, batches[0].rows, batches[0].names
                batches[0] = shard_of(model, rows, batch_tokens=size // 2, names=names)
                return True

            def gradient(t: float) -> Any:
                work = partial(differentiate, self.path.to(t), contraction=self.contraction, score=score)
                return until_it_fits(lambda: work(batches[0]), smaller, what=name)

            walker = Walker(
                gradient,
                (ends[0], ends[1]),
                choices,
                asked.metrics,
                dict(asked.functions),
                asked.tolerance,
                asked.max_gradients,
                note=lambda text: task.advance(0, note=text),
                scores=lambda t: score_shard(self.path.to(t), shard, score=score),
                hopeless=(lambda: "") if experts is None else experts.warning,
            )
            found = walker.run(rules)
            if tap is not None:
                tap.take(found, choices, shard, suite)
            task.advance(len(shard.rows))
        measured = self._measured(shard, suite, ends, score)
        layout, metrics = self.contraction.layout, asked.named()
        piece = (found, choices, shard)
        return lambda seconds: effects_of(
            suite, piece, layout, metrics, first_order=asked.first_order, seconds=seconds,
            measured=None if measured is None else tuple(choices.table(scores) for scores in measured),
            causes=() if measured is None else self._causes(suite),
        )  # fmt: skip

    def _measured(
        self, shard: ItemShard, suite: Suite, ends: Sequence[np.ndarray], score: RowScore
    ) -> list[np.ndarray] | None:
        """Scores of both models as each is asked, [rows] each; None where they are the path's own ends, to rounding.

        The path reads one set of rows by one config. Whatever else the two models differ in (tokenizer, template,
        BOS, rotary settings, windows, ...) shows here, for here each model is run as it is.
        """
        if self.path.rows is not None and score is not log_probability:
            return None  # a function of the logits cannot meet two vocabularies: it is read on the path alone
        found = []
        for t, loaded, end in zip((0.0, 1.0), (self.pair.base, self.pair.aligned), ends, strict=True):
            mine = self._own(loaded, suite, shard) if score is log_probability else shard
            walked = loaded.model is self.path.model
            if mine is shard and walked:
                found.append(end)
                continue
            found.append(score_shard(self.path.to(t) if walked else loaded.model, mine, score=score))
        limit = ROUNDING if self.path.model.dtype in (torch.float32, torch.float64) else HALF_ROUNDING
        apart = max(float(np.abs(one - end).max(initial=0.0)) for one, end in zip(found, ends, strict=True))
        return found if apart > limit else None

    def _own(self, loaded: LoadedModel, suite: Suite, shard: ItemShard) -> ItemShard:
        """The shard's items as a model is asked on its own; the shard itself where that is the same."""
        items = {row.item for row in shard.rows}
        asked = as_asked(self.pair, loaded, self.settings.template).rows(suite)
        rows = tuple(row for row in asked if row.item in items)
        return shard if rows == shard.rows else self.shard(rows, suite)

    def _causes(self, suite: Suite) -> tuple[str, ...]:
        """What makes the two models compute more than their weights say, in words."""
        prompts = asked_apart(self.pair, suite, self.settings.template)
        report = getattr(self.pair, "report", None)
        config = [key for key, _, _ in report.config_differences] if report is not None else []
        found = [f"the two are asked in different prompts ({', '.join(prompts)})"] if prompts else []
        found += [f"their configs differ ({', '.join(config)})"] if config else []
        return tuple(found) or ("the models compute more than their weights and configs say",)


def choices_of(shard: ItemShard, suite: Suite) -> Choices:
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


@contextmanager
def opened(
    pair: ModelPair, levels: Sequence[str], settings: PathSettings, *, keep_tokens: bool = True
) -> Iterator[PathAttribution]:
    """Yield an attribution of a pair, its model ready to be walked; on leaving every weight is what it was."""
    with walk(pair) as path:
        difference = difference_of(pair)
        beside = (*selection_units(difference), *((ADDED_TOKENS,) if path.rows is not None else ()))
        contraction = Contraction(path.model, difference, tuple(levels), keep_tokens=keep_tokens, beside=beside)
        experts = selection_of(path, contraction, active=settings.selection)
        with weighted_tokens(path, contraction):
            yield PathAttribution(pair, path, contraction, settings, experts)


@contextmanager
def checkpointed(model: Any, on: bool) -> Iterator[None]:
    """Recompute each block in the backward pass instead of keeping its activations: less memory, a third more time."""
    if not on:
        yield
        return
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=True)
        block.gradient_checkpointing = True
        block.training = True  # the block alone: its parts stay as they are, so that no dropout wakes
    try:
        yield
    finally:
        for block in blocks:
            block.training = False
            block.gradient_checkpointing = False
