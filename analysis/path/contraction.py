"""From one backward pass to every unit's share of it: gradients of outputs met with what the weights' change adds.

For a module y = f(x; theta) the change Delta of its weights contributes, for each item and token,
<dM/dy, df/dtheta Delta>. A forward hook keeps x, a hook on y sees dM/dy, and their product is summed into the units
of every level. No weight gradient is formed and nothing is kept but activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from taxlens.analysis.path.beyond.inner_weights import carried, carrier_rule
from taxlens.analysis.path.module_rules import Layout, ModuleRule, Reducer, rule_for
from taxlens.analysis.weights.units import Difference, Unit

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
    tally: Tally | None = None
    batch: Batch | None = None
    _handles: list[Any] = field(default_factory=list)
    busy: bool = False

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
        """Start a new node: an empty tally for `n_rows` rows of `n_tokens` tokens in all."""
        wide = torch.float64 if next(self.model.parameters()).dtype == torch.float64 else torch.float32
        units = {level: torch.zeros(n_rows + 1, self.layout.size(level), dtype=wide) for level in self.levels}
        tokens = torch.zeros(n_tokens + 1, self.layout.size("component"), dtype=wide) if self.keep_tokens else None
        self.tally = Tally(units, tokens)

    def finish(self) -> Tally:
        """The node's tally: sums over all batches since `begin`, spare rows dropped."""
        assert self.tally is not None
        units = {level: values[:-1] for level, values in self.tally.units.items()}
        return Tally(units, None if self.tally.tokens is None else self.tally.tokens[:-1])

    def add(self, unit: str, values: Tensor, *, asked: bool = False) -> None:
        """Tally the derivative by something that is no weight, under a unit of `beside`.

        Args:
            unit: its name.
            values: [positions, 1] of the present batch: its inputs' positions, or its asked positions.
            asked: which of the two.
        """
        batch = self.batch
        assert self.tally is not None
        assert batch is not None
        values = values.detach()
        summed = values if asked else values.view(len(batch.rows), batch.width).sum(1, keepdim=True)
        rows = batch.asked_rows % len(self.tally.units["component"]) if asked else batch.rows
        for level, target in self.tally.units.items():
            column = self.layout.names[level].index(unit)
            target[:, column : column + 1].index_add_(0, rows, summed.to(target))
        if self.tally.tokens is not None:
            where = batch.asked_tokens % len(self.tally.tokens) if asked else batch.tokens
            column = self.layout.names["component"].index(unit)
            self.tally.tokens[:, column].index_add_(0, where, values[:, 0].to(self.tally.tokens))

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
            if not several:
                output.register_hook(lambda gradient: self._meet(rule, kept, gradient))
                return None
            # one output may be made of another: what follows reads views, whose gradients hold no other output's
            seen = {n: one.view_as(one) for n, one in live}
            for n, one in seen.items():
                one.register_hook(lambda gradient, own=kept[n]: self._meet(rule, own, gradient))
            return tuple(seen.get(n, one) for n, one in enumerate(output))

        return keep

    def _meet(self, rule: ModuleRule, kept: Any, gradient: Tensor) -> None:
        batch = self.batch  # the backward pass's own: several may run through one forward pass
        assert self.tally is not None
        assert batch is not None
        with torch.no_grad():
            shares = rule.meet(kept, gradient.detach(), _reducer(batch, rule))
        rows = batch.asked_rows % len(self.tally.units["component"]) if rule.flat else batch.rows
        for level, columns, values in shares.units:
            target = self.tally.units[level]
            _scatter(target, rows, columns, values.to(target))
        if self.tally.tokens is not None:
            where = batch.asked_tokens % len(self.tally.tokens) if rule.flat else batch.tokens
            column = rule.component
            self.tally.tokens[:, column].index_add_(0, where, shares.tokens.to(self.tally.tokens))


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
    wide = torch.zeros(len(rows), target.shape[1], dtype=target.dtype)
    wide.index_add_(1, torch.as_tensor(columns), values)
    target.index_add_(0, rows, wide)
