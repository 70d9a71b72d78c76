"""From one backward pass to every unit's share of it: gradients of outputs met with what the weights' change adds.

For a module y = f(x; theta) the change Delta of its weights contributes, for each item and token,
<dM/dy, df/dtheta Delta>. A forward hook keeps x, a hook on y sees dM/dy, and their product is summed into the units
of every level. No weight gradient is formed and nothing is kept but activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from taxlens.analysis.path.beyond.inner_weights import carried, carrier_rule
from taxlens.analysis.path.module_rules import Layout, ModuleRule, Reducer, rule_for
from taxlens.analysis.weights.units import Difference, Unit
from taxlens.core.memory import return_freed_memory

Tensor = torch.Tensor


@dataclass(slots=True, eq=False)
class Batch:
    """Where a batch of token rows goes: which row and which token each position is.

    Args:
        rows: row number of each input, int64 [batch]; the shard's size for an input without a row.
        tokens: number of each position's token in the whole shard, int64 [batch * width]; padding is the last one.
        asked_rows: row number of each asked position (where the output head runs), int64 [asked]; -1: no row's.
        asked_tokens: token number of each asked position, int64 [asked]; -1: no row's.
        width: padded length.
    """

    rows: Tensor
    tokens: Tensor
    asked_rows: Tensor
    asked_tokens: Tensor
    width: int
    held: dict[tuple[torch.device, bool], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def places(self, device: torch.device, shape: tuple[int, int], *, asked: bool) -> tuple[Tensor, Tensor]:
        """(row, token number) of each input's positions, or of each asked position, on a device; -1 is the spare one.

        Args:
            device: where they are wanted.
            shape: rows and tokens of the whole shard.
            asked: of asked positions.
        """
        if (device, asked) not in self.held:
            rows = self.asked_rows % (shape[0] + 1) if asked else self.rows
            tokens = self.asked_tokens % (shape[1] + 1) if asked else self.tokens
            both = (rows.to(device, non_blocking=True), tokens.to(device, non_blocking=True))
            self.held[device, asked] = both
        return self.held[device, asked]


@dataclass(slots=True, eq=False)
class Tally:
    """Derivatives at one node: of each row's score, by unit at every level, and by component and token.

    Args:
        units: level to [rows, units].
        tokens: [tokens + 1, components]; the last row gathers padding and is zero.
    """

    units: dict[str, Tensor]
    tokens: Tensor | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """What a device has tallied of one node: scores and sums, views of one stretch of memory."""

    raw: Tensor
    units: dict[str, Tensor]
    tokens: Tensor | None
    scores: Tensor
    sums: Tensor


def _scores_of(raw: Tensor, rows: int) -> Tensor:
    return raw[: 8 * rows].view(torch.float64)


def _sums_of(raw: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    return raw[8 * rows :].view(dtype)


@dataclass(slots=True, eq=False)
class Contraction:
    """Hooks on a model that tally what the change of each module contributes to a backward pass.

    Args:
        model: the model that is walked from base to aligned.
        difference: the change, with its units.
        levels: levels to tally; "component" always is.
        keep_tokens: whether to tally by token too.
        beside: units that hold no weights, which others tally by `add`.

    Example:
        >>> with Contraction(model, difference, ("component",)) as contraction:    # doctest: +SKIP
        ...     contraction.begin(n_rows, n_tokens)                                # doctest: +SKIP
    """

    model: Any
    difference: Difference
    levels: tuple[str, ...]
    keep_tokens: bool = True
    beside: tuple[Unit, ...] = ()
    rules: list[ModuleRule] = field(default_factory=list)
    layout: Layout = field(init=False)
    batch: Batch | None = None
    _handles: list[Any] = field(default_factory=list)
    busy: bool = False
    _kept: list[Any] = field(default_factory=list)
    _shape: tuple[int, int] = (0, 0)
    _held: dict[torch.device, _Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.levels = ("component", *(level for level in self.levels if level != "component"))
        layout = Layout(self.difference, self.levels, self.beside)
        changed = [role for role in self.difference.anatomy.modules if self.difference.changed(role.name)]
        carriers = carried(self.model, changed)
        for role in changed:
            if role.name not in carriers:
                self.rules.append(rule_for(self.model.get_submodule(role.name), role, self.difference, layout))
        for place in dict.fromkeys(carriers.values()):
            inner = [role for role in changed if carriers.get(role.name) == place]
            self.rules.append(carrier_rule(place, inner, self.model, self.difference, layout))
        self.layout = layout

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Modules whose type has no rule of its own and that were differentiated forward instead."""
        return tuple(rule.name for rule in self.rules if rule.general)

    def __enter__(self) -> Contraction:
        for role in self.difference.anatomy.modules:
            if role.kind == "embed":  # first, so that the graph has started when a rule looks at the output
                module = self.model.get_submodule(role.name)
                self._handles.append(module.register_forward_hook(_start_graph))
        for rule in self.rules:
            module = self.model.get_submodule(rule.name)
            self._handles.append(module.register_forward_hook(self._hook(rule), with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin(self, n_rows: int, n_tokens: int) -> None:
        """Start a new node: an empty tally for `n_rows` rows of `n_tokens` tokens in all, on every device in use."""
        self._shape = (n_rows, n_tokens)
        self._held.clear()
        return_freed_memory()

    def forget(self) -> None:
        """Let go of what was kept of a forward pass, once all its backward passes are done: its graph may live on."""
        self.batch = None
        self._kept.clear()

    def scored(self, rows: Tensor, values: Tensor) -> None:
        """Add to the rows' scores what a batch's asked positions gave.

        Args:
            rows: row of each, int64, on the CPU or on the values' device.
            values: scores, on the device of the model's head.
        """
        target = self._on(values.device).scores
        target.index_add_(0, rows.to(values.device, non_blocking=True), values.to(target.dtype))

    def finish(self) -> tuple[Tally, np.ndarray]:
        """The node's tally and scores: sums over all batches and devices since `begin`, in one copy to the host."""
        held = list(self._held.values())
        if not held:
            held = [self._on(torch.device("cpu"))]
        first = held[0]
        for other in held[1:]:
            moved = other.raw.to(first.raw.device)
            first.scores.add_(_scores_of(moved, self._shape[0]))
            first.sums.add_(_sums_of(moved, self._shape[0], first.sums.dtype))
        here = self._view(first.raw.to("cpu"), first.sums.dtype)
        self._held.clear()
        units = {level: values[:-1] for level, values in here.units.items()}
        return Tally(units, None if here.tokens is None else here.tokens[:-1]), here.scores.numpy()

    def _on(self, device: torch.device) -> _Held:
        """What is tallied on a device."""
        if device not in self._held:
            wide = torch.float64 if next(self.model.parameters()).dtype == torch.float64 else torch.float32
            rows, tokens = self._shape
            columns = sum(self.layout.size(level) for level in self.levels)
            size = (rows + 1) * columns + (tokens + 1) * self.layout.size("component") * self.keep_tokens
            bytes_ = 8 * rows + size * (8 if wide == torch.float64 else 4)
            self._held[device] = self._view(torch.zeros(bytes_, dtype=torch.uint8, device=device), wide)
        return self._held[device]

    def _view(self, raw: Tensor, dtype: torch.dtype) -> _Held:
        """Scores and sums in one stretch of memory, which leaves a device in one copy."""
        rows, tokens = self._shape
        sums, units, at = _sums_of(raw, rows, dtype), {}, 0
        for level in self.levels:
            size = (rows + 1) * self.layout.size(level)
            units[level] = sums[at : at + size].view(rows + 1, self.layout.size(level))
            at += size
        by_token = sums[at:].view(tokens + 1, self.layout.size("component")) if self.keep_tokens else None
        return _Held(raw, units, by_token, _scores_of(raw, rows), sums)

    def add(self, unit: str, values: Tensor, *, asked: bool = False) -> None:
        """Tally the derivative by something that is no weight, under a unit of `beside`.

        Args:
            unit: its name.
            values: [positions, 1] of the present batch: its inputs' positions, or its asked positions.
            asked: which of the two.
        """
        assert self.batch is not None
        values = values.detach()
        tally, (rows, where) = self._on(values.device), self.batch.places(values.device, self._shape, asked=asked)
        count = len(self.batch.rows)
        summed = values if asked else values.view(count, self.batch.width).sum(1, keepdim=True)
        for level, target in tally.units.items():
            column = self.layout.names[level].index(unit)
            target[:, column : column + 1].index_add_(0, rows, summed.to(target))
        if tally.tokens is not None:
            column = self.layout.names["component"].index(unit)
            tally.tokens[:, column].index_add_(0, where, values[:, 0].to(tally.tokens))

    def _hook(self, rule: ModuleRule) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            several = isinstance(output, tuple)
            outputs = list(enumerate(output)) if several else [(0, output)]
            live = [(n, one) for n, one in outputs if isinstance(one, Tensor) and one.requires_grad]
            if self.busy or self.batch is None or not live:
                return None
            self.busy = True
            try:
                with torch.no_grad():
                    kept = rule.keep_call(module, inputs, named)
            finally:
                self.busy = False
            place = len(self._kept)
            self._kept.append(kept)
            if not several:
                output.register_hook(lambda gradient: self._meet(rule, self._kept[place], gradient))
                return None
            # one output may be made of another: what follows reads views, whose gradients hold no other output's
            seen = {n: one.view_as(one) for n, one in live}
            for n, one in seen.items():
                one.register_hook(lambda gradient, n=n: self._meet(rule, self._kept[place][n], gradient))
            return tuple(seen.get(n, one) for n, one in enumerate(output))

        return keep

    def _meet(self, rule: ModuleRule, kept: Any, gradient: Tensor) -> None:
        batch = self.batch  # the backward pass's own: several may run through one forward pass
        assert batch is not None
        with torch.no_grad():
            shares = rule.meet(kept, gradient.detach(), _reducer(batch, rule))
            tally = self._on(gradient.device)
            rows, where = batch.places(gradient.device, self._shape, asked=rule.flat)
            for level, columns, values in shares.units:
                target = tally.units[level]
                _scatter(target, rows, columns, values.to(target.dtype))
            if tally.tokens is not None:
                tally.tokens[:, rule.component].index_add_(0, where, shares.tokens.to(tally.tokens.dtype))


def _start_graph(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    if torch.is_grad_enabled() and not output.requires_grad:
        output.requires_grad_(True)


def _reducer(batch: Batch, rule: ModuleRule) -> Reducer:
    """From [positions, k] to [batch, k]: the sum over an item's tokens (asked positions stay apart)."""
    if rule.flat:
        return Reducer(len(batch.asked_rows), None)
    return Reducer(len(batch.rows) * batch.width, (len(batch.rows), batch.width))


def _scatter(target: Tensor, rows: Tensor, columns: slice | Tensor | Sequence[int], values: Tensor) -> None:
    """target[rows, columns] += values, where rows or columns may repeat."""
    if isinstance(columns, slice):
        target[:, columns].index_add_(0, rows, values)
        return
    wide = torch.zeros(len(rows), target.shape[1], dtype=target.dtype, device=target.device)
    wide.index_add_(1, torch.as_tensor(columns).to(target.device, non_blocking=True), values)
    target.index_add_(0, rows, wide)
