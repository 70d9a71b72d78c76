"""One shard of a suite walked along the path, rule by rule: its gradients are kept from one rule to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from taxlens.activations.items.gold import check_one_right
from taxlens.activations.items.out_of_memory import until_it_fits
from taxlens.activations.items.tokens import Row
from taxlens.analysis.path.adaptive_quadrature import Choices, Walked, Walker
from taxlens.analysis.path.assembly import effects_of
from taxlens.analysis.path.gradient_passes import (
    ItemShard,
    RowScore,
    differentiate,
    log_probability,
    score_shard,
    shard_of,
)
from taxlens.analysis.path.quadrature import QuadratureRule

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.path.attribution import SuiteEffects
    from taxlens.analysis.path.engine import NodeTap, PathAttribution


@dataclass(slots=True, eq=False)
class ShardWalk:
    """Rows of a suite that are walked together, under way.

    Args:
        job: the attribution.
        rows: the shard's rows.
        suite: the suite.
        score: the shard to what is differentiated.
        read: the shard and the suite to whose choices the rows are.
        kept: whether gradients may be kept from one rule to the next.
    """

    job: PathAttribution
    rows: list[Row]
    suite: Suite
    score: Callable[[ItemShard], RowScore]
    read: Callable[[ItemShard, Suite], Choices]
    kept: bool
    _walker: Walker | None = field(default=None, init=False)
    _shard: ItemShard | None = field(default=None, init=False)
    _by: RowScore | None = field(default=None, init=False)

    def __call__(self, rule: QuadratureRule, before: QuadratureRule | None) -> dict[str, Any]:
        """Walk by one rule: "effects" of the shard by it, and "account", what it leaves open."""
        started = time.perf_counter()
        with self._open() as walker:
            account = walker.account(rule, before)
            found = self._found(walker, walker.result(rule, before, ""), started)
        if not self.kept:
            self._walker = None
        return {"account": account, "effects": found} | self._told()

    def alone(self, rules: Sequence[QuadratureRule] | None) -> dict[str, Any]:
        """Walk a suite of one shard, rule by rule, until it closes: "effects" of the shard."""
        started = time.perf_counter()
        with self._open() as walker:
            return {"effects": self._found(walker, walker.run(rules), started)} | self._told()

    def _told(self) -> dict[str, Any]:
        return {} if self._tap is None else {"tap": self._tap.told(self.suite, {row.item for row in self.rows})}

    def _found(self, walker: Walker, walked: Walked, started: float) -> SuiteEffects:
        """The effects of a walk, and what looked on told of it."""
        job, shard = self.job, self.shard
        if self._tap is not None:
            self._tap.take(walked, walker.choices, shard, self.suite)
        measured = self._measured_apart(walker)
        return effects_of(
            self.suite, (walked, walker.choices, shard), job.contraction.layout, job.settings.named(),
            first_order=job.settings.first_order, seconds=time.perf_counter() - started,
            measured=None if measured is None else (measured[0], measured[1]),
            causes=() if measured is None else job.causes(self.suite),
        )  # fmt: skip

    @property
    def shard(self) -> ItemShard:
        """The rows with their batches."""
        if self._shard is None:
            self._shard = self.job.shard(self.rows, self.suite)
        return self._shard

    @property
    def _tap(self) -> NodeTap | None:
        return self.job.settings.tap if self._plain else None

    @property
    def _plain(self) -> bool:
        return self.score is plain_score

    @contextmanager
    def _open(self) -> Iterator[Walker]:
        """A walker of the shard within what must be open while it walks."""
        job, shard = self.job, self.shard
        watched = nullcontext() if self._tap is None else self._tap.watching(job.path, shard, job.contraction)
        chosen = nullcontext() if job.selection is None else job.selection.open()
        name = f"attribute {self.suite.name}"
        shown = job.settings.progress.task(name, total=len(shard.rows), unit="rows")
        on = job.settings.checkpoint or (job.selection is None and recomputed(shard))
        with watched, chosen, job.contraction, checkpointed(job.path.model, on), shown as task:
            if self._walker is None:
                self._walker = self._new(name)
            self._walker.note = lambda text: task.advance(0, note=text)
            yield self._walker
            task.advance(len(shard.rows))

    def _new(self, name: str) -> Walker:
        job, shard, asked = self.job, self.shard, self.job.settings
        score = self._by = self.score(shard)
        ends = [score_shard(job.path.to(t), shard, score=score) for t in (0.0, 1.0)]
        batches = [shard]  # the same rows in smaller batches, where memory runs out

        def smaller() -> bool:
            size = max(bundle.ids.numel() for bundle in batches[0].bundles)
            if all(len(bundle.ids) < 2 for bundle in batches[0].bundles):
                return False
            model, rows, names = job.path.model, batches[0].rows, batches[0].names
            batches[0] = shard_of(model, rows, batch_tokens=size // 2, names=names)
            return True

        def gradient(t: float) -> Any:
            work = partial(differentiate, job.path.to(t), contraction=job.contraction, score=score)
            return until_it_fits(lambda: work(batches[0]), smaller, what=name)

        return Walker(
            gradient,
            (ends[0], ends[1]),
            self.read(shard, self.suite),
            asked.metrics,
            dict(asked.functions),
            asked.tolerance,
            asked.max_gradients,
            scores=lambda t: score_shard(job.path.to(t), shard, score=score),
            hopeless=(lambda: "") if job.selection is None else job.selection.warning,
        )

    def _measured_apart(self, walker: Walker) -> list[np.ndarray] | None:
        """Scores [items, choices] of both models as each is asked, where they are not those at the path's ends."""
        found = self.job.measured(self.shard, self.suite, walker.ends, None if self._plain else self._by)
        return None if found is None else [walker.choices.table(scores) for scores in found]


def plain_score(_shard: ItemShard) -> RowScore:
    """What is differentiated where nothing else is asked for: log-probability of the choice's tokens."""
    return log_probability


LONG = 1000
"""Tokens of an input from which blocks are computed again in the backward pass rather than kept: their attention
matrices grow with its square."""


def recomputed(shard: ItemShard) -> bool:
    """Whether a shard's inputs are so long that their activations are computed again in the backward pass."""
    return max(bundle.ids.shape[1] for bundle in shard.bundles) > LONG


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


def choices_of(shard: ItemShard, suite: Suite) -> Choices:
    """Return which rows of a shard are whose choices, items counted from the shard's first.

    Raises:
        UsageError: an item has several right choices.
    """
    check_one_right(suite)
    items = sorted({row.item for row in shard.rows})
    place = {item: n for n, item in enumerate(items)}
    item = np.array([place[row.item] for row in shard.rows])
    choice = np.array([row.choice for row in shard.rows])
    n_bytes = np.full((len(items), int(choice.max()) + 1), np.nan)
    for row in shard.rows:
        n_bytes[place[row.item], row.choice] = len(suite.items[row.item].choices[row.choice].encode("utf-8"))
    gold = np.array([suite.items[i].gold for i in items], dtype=np.int64)
    return Choices(item, choice, gold, n_bytes)
