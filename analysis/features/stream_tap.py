"""What the residual stream is at one place along the weight path, and how each score depends on it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.hooks.hooks import reading
from taxlens.activations.hooks.site_registry import stream_sites
from taxlens.activations.hooks.sites import Address
from taxlens.activations.models.anatomy import Anatomy
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.items.tokens import Row
    from taxlens.analysis.path.adaptive_quadrature import Choices, Walked
    from taxlens.analysis.path.contraction import Contraction
    from taxlens.analysis.path.gradient_passes import ItemShard
    from taxlens.analysis.path.quadrature import Panel, QuadratureRule
    from taxlens.analysis.weights.path_weights import Walk

Tensor = torch.Tensor


@dataclass(slots=True, eq=False)
class StreamStates:
    """The stream at one address along the path, by time, tokens of the shard's rows one after another.

    Args:
        states: time to [tokens, d].
        gradients: time to [tokens, d], of the score of the token's row by the stream at that token.
    """

    states: dict[float, Tensor] = field(default_factory=dict)
    gradients: dict[float, Tensor] = field(default_factory=dict)


Take = Callable[[StreamStates, "Walked", "Choices", "ItemShard", "Suite"], None]


@dataclass(slots=True, eq=False)
class StreamTap:
    """Reads the stream at an address at every node of a walk, and the scores' gradients by it; changes nothing.

    Args:
        anatomy: of the walked model (its module names serve whichever model is moved).
        address: where; a site of the residual stream.
        taken: called with what was read when a shard's walk ends.
        found: what `taken` keeps, by suite and item: plain values, for other processes that share the walk.

    Raises:
        UsageError: a site that is not the whole stream.
    """

    anatomy: Anatomy
    address: Address
    taken: Take
    found: dict[str, dict[int, Any]] = field(default_factory=dict)
    seen: StreamStates = field(default_factory=StreamStates)

    def __post_init__(self) -> None:
        if self.address.site not in stream_sites():
            rows = [("site", self.address.site), ("must be", ", ".join(stream_sites()))]
            fix = "a dictionary of the residual stream; what the others read passes beside them too."
            raise UsageError(explain("effects of features need the whole stream.", rows, fix))
        if not 0 <= self.address.layer < self.anatomy.n_layers:
            rows = [("layer", self.address.layer), ("must be", f"0 to {self.anatomy.n_layers - 1}")]
            raise UsageError(explain("layer out of range.", rows))

    def row_bytes(self, row: Row, nodes: int) -> int:
        """States and gradients of a row's tokens at all nodes, and states at both ends."""
        return 4 * self.anatomy.d_model * len(row.ids) * (2 * nodes + 2)

    @contextmanager
    def watching(self, path: Walk, shard: ItemShard, contraction: Contraction) -> Iterator[None]:
        """Keep states and gradients of every pass over the shard inside the block."""
        self.seen = StreamStates()
        wide = torch.float64 if next(path.model.parameters()).dtype == torch.float64 else torch.float32
        shape = (shard.n_tokens + 1, self.anatomy.d_model)
        passes = 0

        def read(_address: Address, x: Tensor) -> None:
            nonlocal passes
            if contraction.batch is None:  # a plain pass over the shard's batches, in their order
                bundle = shard.bundles[passes % len(shard.bundles)]
                passes += 1
                for tokens in bundle.tokens:
                    self._put(self.seen.states, path.t, shape, tokens, x.detach().to("cpu", wide))
            elif x.requires_grad:
                kept = x.detach().to("cpu", wide)
                x.register_hook(partial(meet, path.t, kept))

        def meet(t: float, state: Tensor, gradient: Tensor) -> None:
            assert contraction.batch is not None
            tokens = contraction.batch.tokens.cpu()
            self._put(self.seen.states, t, shape, tokens, state)
            held = self.seen.gradients.setdefault(t, torch.zeros(shape, dtype=wide))
            held.index_add_(0, tokens, gradient.detach().to("cpu", wide).reshape(-1, shape[1]))

        model = path.model
        with reading(model, self._anatomy_of(model), [self.address], read):
            yield

    def take(self, found: Walked, choices: Choices, shard: ItemShard, suite: Suite) -> None:
        """Hand on what was read, and forget it."""
        seen = StreamStates(
            {t: x[:-1] for t, x in self.seen.states.items()}, {t: g[:-1] for t, g in self.seen.gradients.items()}
        )
        self.seen = StreamStates()
        self.taken(seen, found, choices, shard, suite)

    def told(self, suite: Suite, items: set[int]) -> dict[int, Any]:
        """What is kept of items of a suite."""
        return {item: held for item, held in self.found.get(suite.name, {}).items() if item in items}

    def hear(self, suite: Suite, told: dict[int, Any]) -> None:
        """Keep what another process's tap has told."""
        self.found.setdefault(suite.name, {}).update(told)

    def _anatomy_of(self, model: torch.nn.Module) -> Anatomy:
        """The walked model's own blocks, where it is the other model of the pair."""
        own = self.anatomy.blocks[0]
        if any(module is own for module in model.modules()):
            return self.anatomy
        from taxlens.activations.models.anatomy import anatomy

        return anatomy(model)

    @staticmethod
    def _put(kept: dict[float, Tensor], t: float, shape: tuple[int, int], tokens: Tensor, x: Tensor) -> None:
        held = kept.setdefault(t, torch.zeros(shape, dtype=x.dtype))
        held[tokens] = x.reshape(-1, shape[1])


@dataclass(slots=True, eq=False)
class Taps:
    """Several taps on one walk."""

    taps: Sequence[StreamTap]

    def row_bytes(self, row: Row, nodes: int) -> int:
        """What all of them keep for a row."""
        return sum(tap.row_bytes(row, nodes) for tap in self.taps)

    @contextmanager
    def watching(self, path: Walk, shard: ItemShard, contraction: Contraction) -> Iterator[None]:
        """A block within which each of them watches."""
        with ExitStack() as stack:
            for tap in self.taps:
                stack.enter_context(tap.watching(path, shard, contraction))
            yield

    def take(self, found: Walked, choices: Choices, shard: ItemShard, suite: Suite) -> None:
        """Hand on to each."""
        for tap in self.taps:
            tap.take(found, choices, shard, suite)

    def told(self, suite: Suite, items: set[int]) -> list[Any]:
        """What each keeps of items of a suite."""
        return [tap.told(suite, items) for tap in self.taps]

    def hear(self, suite: Suite, told: list[Any]) -> None:
        """Let each keep what its like in another process has told."""
        for tap, one in zip(self.taps, told, strict=True):
            tap.hear(suite, one)


def rates(rule: QuadratureRule, states: dict[float, Tensor]) -> Tensor:
    """How fast the stream moves at a rule's nodes: derivative of the polynomial through all states of their panel.

    Args:
        rule: nodes, panel by panel.
        states: time to [tokens, d]; both ends of the path, and the ends of panels where they were read.

    Returns:
        [nodes, tokens, d].
    """
    return torch.cat([_panel_rates(panel, states) for panel in rule.panels])


def _panel_rates(panel: Panel, states: dict[float, Tensor]) -> Tensor:
    ends = [t for t in (panel.start, panel.end) if t in states]
    times = np.array(sorted({*ends, *(float(t) for t in panel.nodes)}))
    matrix = differentiation(times)[np.searchsorted(times, panel.nodes)]
    held = torch.stack([states[float(t)] for t in times])
    return torch.tensordot(torch.as_tensor(matrix, dtype=held.dtype), held, dims=1)


def differentiation(times: np.ndarray) -> np.ndarray:
    """The matrix that takes values at distinct times to derivatives there, float64 [n, n]; exact below degree n.

    Example:
        >>> differentiation(np.array([0.0, 0.5, 1.0])) @ np.array([0.0, 0.25, 1.0])
        array([0., 1., 2.])

    References:
        Berrut and Trefethen, Barycentric Lagrange interpolation, SIAM Review 46 (2004), section 9.
    """
    gaps = times[:, None] - times[None, :]
    np.fill_diagonal(gaps, 1.0)
    weights = 1.0 / gaps.prod(axis=1)
    out = weights[None, :] / weights[:, None] / gaps
    np.fill_diagonal(out, 0.0)
    np.fill_diagonal(out, -out.sum(axis=1))
    return out
