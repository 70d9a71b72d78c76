"""One attribution under way: a walked model, its hooks, and what is asked of every suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from taxlens.activations.items.tokens import Row
from taxlens.activations.models.prompts import as_asked, asked_apart, one_prompting
from taxlens.analysis.path.adaptive_quadrature import (
    Choices,
    Walked,
    finer_rules,
    ladder_of,
    rule_before,
    unmet,
    unresolved,
)
from taxlens.analysis.path.assembly import merged, with_items
from taxlens.analysis.path.attribution import SuiteEffects
from taxlens.analysis.path.beyond.added_tokens import UNIT as ADDED_TOKENS
from taxlens.analysis.path.beyond.added_tokens import weighted_tokens
from taxlens.analysis.path.beyond.expert_selection import ExpertSelection, selection_of, selection_units
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import ItemShard, RowScore, log_probability, score_shard, shard_of
from taxlens.analysis.path.quadrature import QuadratureRule
from taxlens.analysis.path.shard_walk import ShardWalk, choices_of, plain_score
from taxlens.analysis.path.top_neurons import with_top_neurons
from taxlens.analysis.weights.path_weights import Walk, walk
from taxlens.analysis.weights.units import difference_of
from taxlens.core.artifacts import sha256_json
from taxlens.core.errors import ItemError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.shared_work import shared

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

ROUNDING, HALF_ROUNDING = 1e-4, 0.02
"""Largest difference in nats of a score that is rounding: in float32 and wider, and in half precision."""

MEMORY = 1 << 30
"""Bytes of tallies that a shard of items may hold; larger suites are walked shard by shard."""

ITEMS = 64
"""Most items of a shard."""


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

    def told(self, suite: Suite, items: set[int]) -> Any:
        """What it has read of items of a suite (by their places in it), in plain values."""
        ...

    def hear(self, suite: Suite, told: Any) -> None:
        """Take over what another process's tap has told of a suite."""
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
    _asked: dict[tuple[int, str], list[Row]] = field(default_factory=dict)

    def suite(self, suite: Suite) -> SuiteEffects:
        """Walk a suite in shards, and once more by finer rules the few items that this leaves unresolved."""
        asked, rows = self.settings, self.rows(suite)
        found = self.in_rounds(rows, suite, asked.rules)
        places = unresolved(found, asked.tolerance)
        finer = [] if asked.rules else finer_rules(found.gradients, asked.max_gradients)
        if len(places) and finer:
            items = np.array(sorted({row.item for row in rows}))[places]
            few = [row for row in rows if row.item in items]
            found = with_items(found, self.in_rounds(few, suite, finer), places)
        return self.finished(found)

    def in_rounds(
        self,
        rows: list[Row],
        suite: Suite,
        rules: Sequence[QuadratureRule] | None,
        *,
        score: Callable[[ItemShard], RowScore] = plain_score,
        read: Callable[[ItemShard, Suite], Choices] | None = None,
        beside: Callable[[Row], int] = lambda row: 0,
    ) -> SuiteEffects:
        """Walk all shards by one rule, judge them together, and go on to the next rule where they do not close.

        So neither the cut into shards nor who walks them decides when a suite is done.

        Args:
            rows: choice rows, of one suite.
            suite: the suite.
            rules: rules to walk by instead of the usual ones.
            score: a shard to what is differentiated.
            read: a shard and the suite to whose choices its rows are.
            beside: further bytes that a row takes while it is walked.
        """
        asked = self.settings
        tap = None if asked.tap is None else partial(asked.tap.row_bytes, nodes=min(asked.max_gradients, 15))
        shards = self.shards(rows, beside=lambda row: beside(row) + (0 if tap is None else tap(row)))
        ladder = list(rules) if rules else ladder_of(asked.max_gradients)
        whole = asked.tap is None and self.selection is None  # else something must see all rules in one piece
        kept = whole and self._bytes(rows) <= MEMORY
        walks = [ShardWalk(self, mine, suite, score, read or choices_of, kept) for mine in shards]
        told = [asked.metrics, self.contraction.levels, asked.tolerance, [len(r.nodes) for r in ladder], suite.sha256]
        name = f"attribute {suite.name} ({sha256_json([*told, [row.ids for row in rows]])[:12]})"
        if len(walks) == 1 and not whole:
            one = next(shared(name, [0], lambda n: walks[0].alone(rules)))
            return self._heard(suite, [one])[0]["effects"]
        for number, rule in enumerate(ladder):
            before, last = rule_before(ladder, number, given=bool(rules)), number == len(ladder) - 1
            if before is None and not last:
                continue  # nothing to judge it by; a nested rule takes its nodes over
            found = list(shared(name, range(len(shards)), lambda n, rule=rule, before=before: walks[n](rule, before)))
            accounts = [one["account"] for one in found]
            reason = unmet(accounts, asked.tolerance, nodes=len(rule.nodes))
            hopeless = next((one.hopeless for one in accounts if one.hopeless), "")
            if not reason or last or hopeless:
                parts = [one["effects"] for one in self._heard(suite, found)]
                return dataclasses.replace(
                    merged(parts), closed=not reason, reason=(hopeless or reason) if reason else ""
                )
        raise AssertionError("a ladder has at least one rule")

    def _heard(self, suite: Suite, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What was found, once the tap knows what others' taps have read."""
        for one in found:
            if self.settings.tap is not None and "tap" in one:
                self.settings.tap.hear(suite, one["tap"])
        return found

    def _bytes(self, rows: Sequence[Row]) -> int:
        """Bytes of the tallies of rows at all nodes of a walk."""
        columns = sum(self.contraction.layout.size(level) for level in self.contraction.levels)
        one = self.contraction.layout.size("component") if self.contraction.keep_tokens else 0
        return sum(4 * min(self.settings.max_gradients, 15) * (columns + one * len(row.ids)) for row in rows)

    def finished(self, found: SuiteEffects) -> SuiteEffects:
        """A suite's effects, the largest neurons alone and the others as one, every token with its text."""
        return self.worded(with_top_neurons(found, self.settings.neurons))

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
        """Rows cut between items: at most `ITEMS` items a shard, whose tallies, and the bytes `beside` them, fit the memory.

        The cut follows from the rows and the units alone, whoever walks the shards.
        """
        memory = MEMORY if memory is None else memory
        shards: list[list[Row]] = [[]]
        used = items = 0
        for number, row in enumerate(rows):
            first = number == 0 or rows[number - 1].item != row.item
            if first and (used > memory or items == ITEMS):
                shards.append([])
                used = items = 0
            items += first
            shards[-1].append(row)
            used += self._bytes([row]) + beside(row)
        return shards

    def measured(
        self, shard: ItemShard, suite: Suite, ends: Sequence[np.ndarray], score: RowScore | None
    ) -> list[np.ndarray] | None:
        """Scores of both models as each is asked, [rows] each; None where they are the path's own ends, to rounding.

        The path reads one set of rows by one config. Whatever else the two models differ in (tokenizer, template,
        BOS, rotary settings, windows, ...) shows here, for here each model is run as it is.

        Args:
            shard: the rows.
            suite: of them.
            ends: scores at the path's ends.
            score: what is differentiated, where that is not the choices' log-probability.
        """
        if self.path.rows is not None and score is not None:
            return None  # a function of the logits cannot meet two vocabularies: it is read on the path alone
        found, by = [], score or log_probability
        for t, loaded, end in zip((0.0, 1.0), (self.pair.base, self.pair.aligned), ends, strict=True):
            mine = self._own(loaded, suite, shard) if score is None else shard
            walked = loaded.model is self.path.model
            if mine is shard and walked:
                found.append(end)
                continue
            found.append(score_shard(self.path.to(t) if walked else loaded.model, mine, score=by))
        limit = ROUNDING if self.path.model.dtype in (torch.float32, torch.float64) else HALF_ROUNDING
        apart = max(float(np.abs(one - end).max(initial=0.0)) for one, end in zip(found, ends, strict=True))
        return found if apart > limit else None

    def _own(self, loaded: LoadedModel, suite: Suite, shard: ItemShard) -> ItemShard:
        """The shard's items as a model is asked on its own; the shard itself where that is the same."""
        items, key = {row.item for row in shard.rows}, (id(loaded), suite.sha256)
        if key not in self._asked:
            self._asked[key] = as_asked(self.pair, loaded, self.settings.template).rows(suite)
        rows = tuple(row for row in self._asked[key] if row.item in items)
        return shard if rows == shard.rows else self.shard(rows, suite)

    def causes(self, suite: Suite) -> tuple[str, ...]:
        """What makes the two models compute more than their weights say, in words."""
        prompts = asked_apart(self.pair, suite, self.settings.template)
        report = getattr(self.pair, "report", None)
        config = [key for key, _, _ in report.config_differences] if report is not None else []
        found = [f"the two are asked in different prompts ({', '.join(prompts)})"] if prompts else []
        found += [f"their configs differ ({', '.join(config)})"] if config else []
        return tuple(found) or ("the models compute more than their weights and configs say",)


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
