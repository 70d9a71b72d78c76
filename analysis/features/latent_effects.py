"""From the stream along the path to every latent's share of the tax, item by item.

At a node the derivative of a score through the stream is <gradient, rate of the stream>. The rate is split over the
decoders in use at the token, and what they leave is the error: so latents, error and excluded tokens sum to what
crosses the address, whatever the dictionary. Rates come from the polynomial through the stream's states, and what a
node is worth in a metric from the chain rule of the same walk; no pass of the model is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from taxlens.analysis.features.change_codes import (
    Span,
    check_reading,
    codes_along,
    least_squares,
    random_span,
    span_of,
)
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.stream_tap import StreamStates, rates
from taxlens.analysis.features.training.activation_stream import OUTLYING
from taxlens.analysis.path.adaptive_quadrature import loss_sign

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.path.adaptive_quadrature import Choices, Walked
    from taxlens.analysis.path.chain_rule import ScoreMetric
    from taxlens.analysis.path.gradient_passes import ItemShard
    from taxlens.analysis.path.quadrature import QuadratureRule

Tensor = torch.Tensor
CHUNK = 256
"""Tokens worked on at a time."""


@dataclass(slots=True, eq=False)
class ItemEffects:
    """One item's account at the address. Effects are signed as the tax; leading axis: the metrics, in their order.

    Args:
        latents: numbers of the latents in use, int64 [used], ascending.
        values: their effects, float64 [metrics, used].
        coarse: the same by the coarser rule, or None.
        error, excluded: what the decoders leave, and what crosses at excluded tokens [metrics].
        coarse_error: the error by the coarser rule [metrics], or None.
        mass: sum over tokens of squared code times squared decoder length [used]: how much of the change it carries.
        tokens_on: tokens at which each latent is in use [used].
        switched: share of each latent's sum of sizes at tokens where it is on in one model only [used].
        sizes: sum over tokens of the effects' sizes, in the first metric [used].
        change: squared length of the change at tokens read, and what latents, and random decoders, leave of it.
        excluded_change: squared length of the change at excluded tokens.
        tokens: (choice, place, token id, latent, effect in the first metric) of single tokens, if they were kept.
    """

    latents: np.ndarray
    values: np.ndarray
    coarse: np.ndarray | None
    error: np.ndarray
    coarse_error: np.ndarray | None
    excluded: np.ndarray
    mass: np.ndarray
    tokens_on: np.ndarray
    switched: np.ndarray
    sizes: np.ndarray
    change: tuple[float, float, float]
    excluded_change: float
    tokens: tuple[np.ndarray, ...] | None = None


@dataclass(slots=True, eq=False)
class LatentReader:
    """Reads shards of a walk with one dictionary and keeps each item's account.

    Args:
        dictionary: of the stream at the tap's address.
        reading: "least_squares", "encoder" or "preactivation".
        metrics: name to built-in name or user metric, as the walk has them.
        bos: token id that is always excluded; -1 for none.
        keep_tokens: items of each suite whose single tokens are kept.
        seed: of the random decoders that the gate compares with.
    """

    dictionary: Dictionary
    reading: str
    metrics: Mapping[str, str | ScoreMetric]
    bos: int = -1
    keep_tokens: int = 64
    seed: int = 0
    found: dict[str, dict[int, ItemEffects]] = field(default_factory=dict)
    _random: Tensor | None = None

    def __post_init__(self) -> None:
        check_reading(self.dictionary, self.reading)

    def take(self, seen: StreamStates, walked: Walked, choices: Choices, shard: ItemShard, suite: Suite) -> None:
        """Account for one shard; items that were walked before are replaced."""
        held = self.found.setdefault(suite.name, {})
        for item, effects in self.account(seen, walked, choices, shard).items():
            held[item] = effects

    def account(self, seen: StreamStates, walked: Walked, choices: Choices, shard: ItemShard) -> dict[int, ItemEffects]:
        """Each item's account, by its number in the suite."""
        fine = _Rule(walked.path.rule, {m: c.weights for m, c in walked.chained.items()}, seen, choices, self.metrics)
        coarse = None
        if walked.coarse is not None and walked.coarse_rule is not None:
            coarse = _Rule(walked.coarse_rule, walked.coarse[1], seen, choices, self.metrics)
        owner = np.repeat(np.arange(len(shard.rows)), np.diff(shard.offsets))
        base, aligned = seen.states[0.0], seen.states[1.0]
        read = self.included(base, aligned, shard)
        items = np.array([row.item for row in shard.rows])[owner]
        sums = _Sums(self.dictionary.width, len(self.metrics))
        for piece in torch.arange(len(base)).split(CHUNK):
            self._piece(piece, read, items, owner, shard, (fine, coarse), seen, sums)
        return sums.items()

    def included(self, base: Tensor, aligned: Tensor, shard: ItemShard) -> Tensor:
        """Tokens that are read: not the BOS token, and not of a norm beyond `OUTLYING` medians, bool [tokens]."""
        ids = np.concatenate([row.ids[:-1] for row in shard.rows])
        norms = torch.maximum(base.norm(dim=1), aligned.norm(dim=1))
        limit = OUTLYING * torch.maximum(base.norm(dim=1).median(), aligned.norm(dim=1).median())
        return (norms <= limit) & torch.from_numpy(ids != self.bos)

    def _piece(
        self,
        piece: Tensor,
        read: Tensor,
        items: np.ndarray,
        owner: np.ndarray,
        shard: ItemShard,
        rules: tuple[_Rule, _Rule | None],
        seen: StreamStates,
        sums: _Sums,
    ) -> None:
        inside, outside = piece[read[piece]], piece[~read[piece]]
        fine = rules[0]
        if len(outside):
            sums.exclude(items[outside], fine.crossing(outside, owner), self._moved(seen, outside).square().sum(1))
        if not len(inside):
            return
        dtype = seen.states[0.0].dtype
        base, aligned = seen.states[0.0][inside], seen.states[1.0][inside]
        span = span_of(self.dictionary, base, aligned)
        moved = (aligned - base).to(dtype)
        found = [None if rule is None else self._split(rule, span, inside, owner, seen) for rule in rules]
        whole = least_squares(span, moved)
        if self.reading != "least_squares":
            ends = codes_along(self.dictionary, torch.stack([base, aligned]), span, self.reading)
            whole = (ends[1] - ends[0]).to(dtype)
        left = moved - torch.einsum("tu,tud->td", whole, span.directions.to(dtype))
        chance = random_span(self._decoders(), base, aligned, span)
        rest = moved - torch.einsum("tu,tud->td", least_squares(chance, moved), chance.directions.to(dtype))
        assert found[0] is not None
        facts = (moved.square().sum(1), left.square().sum(1), rest.square().sum(1))
        first = np.array(sorted({row.item for row in shard.rows}))[: self.keep_tokens]
        kept = np.isin(items[inside], first)
        rows = owner[inside]
        choice = np.array([row.choice for row in shard.rows])[rows]
        places = inside.numpy() - shard.offsets[rows]
        ids = np.array([shard.rows[row].ids[place] for row, place in zip(rows, places)])
        told = (np.stack([choice, places, ids]), kept)
        sums.add(items[inside], span, found[0], found[1], self._mass(span, whole), facts, told)

    def _split(
        self, rule: _Rule, span: Span, tokens: Tensor, owner: np.ndarray, seen: StreamStates
    ) -> tuple[Tensor, Tensor]:
        """Effects [metrics, tokens, used] and error [metrics, tokens] by one rule."""
        gradients, moving = rule.gradients(tokens), rule.moving(tokens)
        u = span.directions.to(moving.dtype)
        if self.reading == "least_squares":
            codes = least_squares(span, moving)
        else:
            times = sorted(seen.states)
            held = torch.stack([seen.states[t][tokens] for t in times])
            along = codes_along(self.dictionary, held, span, self.reading).to(moving.dtype)
            codes = rates(rule.rule, dict(zip(times, along)))
        left = moving - torch.einsum("ntu,tud->ntd", codes, u)
        weights = rule.weights[:, :, owner[tokens]]
        shares = torch.einsum("ntd,tud->ntu", gradients, u) * codes
        effects = torch.einsum("mnt,ntu->mtu", weights, shares)
        error = torch.einsum("mnt,nt->mt", weights, (gradients * left).sum(-1))
        copies = span.copies
        if copies > 1:
            effects = effects.reshape(*effects.shape[:2], copies, -1).sum(2)
        return effects, error

    def _mass(self, span: Span, codes: Tensor) -> Tensor:
        """Squared length of what each latent in use writes, [tokens, used]."""
        each = codes.square() * span.directions.to(codes.dtype).square().sum(-1)
        return each.reshape(len(each), span.copies, -1).sum(1)

    def _moved(self, seen: StreamStates, tokens: Tensor) -> Tensor:
        return seen.states[1.0][tokens] - seen.states[0.0][tokens]

    def _decoders(self) -> Tensor:
        if self._random is None:
            generator = torch.Generator().manual_seed(self.seed)
            count = self.dictionary.width * (2 if self.dictionary.role == "crosscoder" else 1)
            vectors = torch.randn(count, self.dictionary.d_out, generator=generator)
            self._random = vectors / vectors.norm(dim=1, keepdim=True)
        return self._random


class _Rule:
    """A quadrature rule with what the walk found at its nodes."""

    def __init__(
        self,
        rule: QuadratureRule,
        weights: Mapping[str, np.ndarray],
        seen: StreamStates,
        choices: Choices,
        metrics: Mapping[str, str | ScoreMetric],
    ) -> None:
        self.rule, self.seen = rule, seen
        dtype = seen.states[0.0].dtype
        signed = [
            -loss_sign(metric) * weights[name][:, choices.item, choices.choice] for name, metric in metrics.items()
        ]
        self.weights = torch.as_tensor(np.stack(signed), dtype=dtype)

    def gradients(self, tokens: Tensor) -> Tensor:
        """[nodes, tokens, d]."""
        return torch.stack([self.seen.gradients[float(t)][tokens] for t in self.rule.nodes])

    def moving(self, tokens: Tensor) -> Tensor:
        """How fast the stream moves, [nodes, tokens, d]."""
        return rates(self.rule, {t: x[tokens] for t, x in self.seen.states.items()})

    def crossing(self, tokens: Tensor, owner: np.ndarray) -> Tensor:
        """What crosses at tokens, all of it, [metrics, tokens]."""
        crossing = (self.gradients(tokens) * self.moving(tokens)).sum(-1)
        return torch.einsum("mnt,nt->mt", self.weights[:, :, owner[tokens]], crossing)


class _Sums:
    """Sums over tokens by item, sparse in the latents."""

    def __init__(self, width: int, metrics: int) -> None:
        self.width, self.metrics = width, metrics
        self.parts: dict[int, list[tuple[np.ndarray, ...]]] = {}
        self.scalars: dict[int, np.ndarray] = {}
        self.tokens: dict[int, list[np.ndarray]] = {}
        self.coarse = False

    def exclude(self, items: np.ndarray, effects: Tensor, change: Tensor) -> None:
        for item in np.unique(items):
            mine = items == item
            row = self._scalar(int(item))
            row[2 * self.metrics : 3 * self.metrics] += effects.numpy()[:, mine].sum(1)
            row[-1] += float(change.numpy()[mine].sum())

    def add(
        self,
        items: np.ndarray,
        span: Span,
        fine: tuple[Tensor, Tensor],
        coarse: tuple[Tensor, Tensor] | None,
        mass: Tensor,
        facts: Sequence[Tensor],
        tokens: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.coarse = coarse is not None
        m = self.metrics
        latents, effects = span.latents.numpy(), fine[0].double().numpy()
        before = effects if coarse is None else coarse[0].double().numpy()
        switched, masses = span.switched.numpy(), mass.double().numpy()
        where, kept = tokens
        for item in np.unique(items):
            mine = np.flatnonzero(items == item)
            on = latents[mine] < self.width
            sizes = np.abs(effects[0][mine])
            columns = [masses[mine], np.ones_like(sizes), switched[mine] * sizes, sizes]
            stacked = np.concatenate([effects[:, mine], before[:, mine], np.stack(columns)])[:, on]
            names, place = np.unique(latents[mine][on], return_inverse=True)
            summed = np.stack([np.bincount(place, row, len(names)) for row in stacked])
            self.parts.setdefault(int(item), []).append((names, summed))
            row = self._scalar(int(item))
            row[:m] += fine[1].double().numpy()[:, mine].sum(1)
            row[m : 2 * m] += (fine if coarse is None else coarse)[1].double().numpy()[:, mine].sum(1)
            row[3 * m : 3 * m + 3] += [float(fact.double().numpy()[mine].sum()) for fact in facts]
            if kept[mine].any():
                spread = np.broadcast_to(np.arange(len(mine))[:, None], on.shape)[on]
                table = [*where[:, mine][:, spread], latents[mine][on], effects[0][mine][on]]
                self.tokens.setdefault(int(item), []).append(np.stack(table))

    def items(self) -> dict[int, ItemEffects]:
        return {item: self._item(item) for item in sorted(self.scalars)}

    def _scalar(self, item: int) -> np.ndarray:
        return self.scalars.setdefault(item, np.zeros(3 * self.metrics + 4))

    def _item(self, item: int) -> ItemEffects:
        m, row = self.metrics, self.scalars[item]
        parts = self.parts.get(item, [])
        held = np.concatenate([names for names, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
        table = np.concatenate([values for _, values in parts], axis=1) if parts else np.zeros((2 * m + 4, 0))
        names, place = np.unique(held, return_inverse=True)
        sums = np.stack([np.bincount(place, one, len(names)) for one in table])
        tokens = self.tokens.get(item)
        return ItemEffects(
            latents=names.astype(np.int64), values=sums[:m], coarse=sums[m : 2 * m] if self.coarse else None,
            error=row[:m], coarse_error=row[m : 2 * m] if self.coarse else None, excluded=row[2 * m : 3 * m],
            mass=sums[2 * m], tokens_on=sums[2 * m + 1], switched=sums[2 * m + 2], sizes=sums[2 * m + 3],
            change=(float(row[3 * m]), float(row[3 * m + 1]), float(row[3 * m + 2])), excluded_change=float(row[-1]),
            tokens=tuple(np.concatenate(tokens, axis=1)) if tokens else None,
        )  # fmt: skip
