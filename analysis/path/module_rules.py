"""How each type of module turns (input, gradient of output) into shares of its weights' change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from taxlens.analysis.weights.dense_change import Blocks, dense_change, filled
from taxlens.analysis.weights.units import Difference, Part, Unit, component_name, is_matrix

if TYPE_CHECKING:
    from taxlens.activations.models.anatomy import ModuleRole

Tensor = torch.Tensor
Columns = slice | Tensor


@dataclass(frozen=True, slots=True)
class Reducer:
    """Sums positions of a batch to its items.

    Args:
        positions: how many there are.
        shape: (items, width), or None: positions stay apart.
    """

    positions: int
    shape: tuple[int, int] | None

    def __call__(self, values: Tensor) -> Tensor:
        """[positions, k] to [items, k]."""
        return values if self.shape is None else values.reshape(*self.shape, -1).sum(1)


Reduce = Reducer


@dataclass(slots=True, eq=False)
class WeightShares:
    """What one call of a module contributed: (level, unit columns, [rows, columns]) and [positions]."""

    units: list[tuple[str, Columns, Tensor]]
    tokens: Tensor


class Layout:
    """Column numbers of the units at each level, and which module's parts they own.

    Args:
        difference: the pair's change.
        levels: levels that are tallied.
        beside: units that hold no weights and stand at every level (what else changes from base to aligned).
    """

    def __init__(self, difference: Difference, levels: tuple[str, ...], beside: Sequence[Unit] = ()) -> None:
        self.units = {level: dict(difference.units(level)) | {unit.name: unit for unit in beside} for level in levels}
        self.names = {level: tuple(units) for level, units in self.units.items()}
        self.levels = levels
        self._owners: dict[tuple[str, str, str], list[tuple[int, Part]]] = {}
        for level in levels:
            for column, unit in enumerate(difference.units(level).values()):
                for part in unit.parts:
                    self._owners.setdefault((level, part.module, part.parameter), []).append((column, part))

    def size(self, level: str) -> int:
        """Number of units at a level."""
        return len(self.names[level])

    def owners(self, level: str, module: str, parameter: str) -> list[tuple[int, Part]]:
        """(column, part) of every unit that owns some of a parameter."""
        return self._owners.get((level, module, parameter), [])


@dataclass(slots=True, eq=False)
class ModuleRule:
    """A module's contraction. Subclasses give `keep` (in the forward pass) and `meet` (in the backward pass)."""

    name: str
    component: int
    flat: bool
    general: bool = field(default=False, init=False)

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """What of the input must be kept until the gradient comes."""
        raise NotImplementedError

    def keep_call(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The same, of a call with arguments by name."""
        return self.keep(module, inputs or tuple(named.values())[:1])

    def meet(self, kept: Any, gradient: Tensor, reduce: Reduce) -> WeightShares:
        """The shares of this call, given the gradient of the output."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class MatrixRule(ModuleRule):
    """Linear and Conv1D: <g, x Delta'> by output slices, input slices, singular triples, and the bias.

    Args:
        factors: (U [out, r], S V' [r, in]), the kept triples; None where none are wanted.
        exact: whether Delta is their product to rounding.
        dense: function that gives Delta, some outputs at a time, where there are no factors.
        bias: change of the bias [out], or None.
        plan: for each level, what to form from the weight and from the bias.
    """

    factors: tuple[Tensor, Tensor] | None
    exact: bool
    dense: Blocks
    bias: Tensor | None
    plan: list[tuple[str, str, Columns | int, Columns | int | None]]

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """The input, as [positions, in]; with exact factors and no input slices, only its r coefficients."""
        x = inputs[0].detach()
        x = x.reshape(-1, x.shape[-1])  # as the model has it: the graph holds the same memory
        if self.factors is None:
            return x, None
        slim = self.exact and not any(kind == "columns" for _, kind, _, _ in self.plan)
        return None if slim else x, _wide(x) @ self.factors[1].T

    def meet(self, kept: Any, gradient: Tensor, reduce: Reduce) -> WeightShares:
        """Form the products that the levels ask for, each once."""
        x, read = kept
        g = _wide(gradient.reshape(-1, gradient.shape[-1]))
        kinds = {kind for _, kind, _, _ in self.plan}
        forms = self._factored(x, read, g, kinds, reduce) if self.exact else self._full(x, g, kinds, reduce)
        if self.factors and not self.exact:
            forms |= self._ranked(read, g, forms["tokens"], reduce)
        from_bias = g @ self.bias if self.bias is not None else None
        tokens = forms["tokens"] if from_bias is None else forms["tokens"] + from_bias
        whole = reduce(forms["tokens"][:, None])
        bias_rows = None if self.bias is None else reduce(g) * self.bias
        units: list[tuple[str, Columns, Tensor]] = []
        for level, kind, columns, bias_columns in self.plan:
            if kind != "nothing":
                units.append((level, _columns(columns), whole if kind == "whole" else forms[kind]))
            if bias_rows is not None and bias_columns is not None:
                one = isinstance(bias_columns, int)
                units.append((level, _columns(bias_columns), bias_rows.sum(1, keepdim=True) if one else bias_rows))
        return WeightShares(units, tokens)

    def _factored(
        self, x: Tensor | None, read: Tensor, g: Tensor, kinds: set[str], reduce: Reduce
    ) -> dict[str, Tensor]:
        assert self.factors is not None
        writes = g @ self.factors[0]
        triples = read * writes
        forms = {"tokens": triples.sum(1)}
        if "triples" in kinds:
            forms["triples"] = reduce(triples)
        if "rows" in kinds:
            forms["rows"] = reduce(g * (read @ self.factors[0].T))
        if "columns" in kinds:
            assert x is not None
            forms["columns"] = reduce(_wide(x) * (writes @ self.factors[1]))
        return forms

    def _ranked(self, read: Tensor, g: Tensor, tokens: Tensor, reduce: Reduce) -> dict[str, Tensor]:
        """The kept triples, and after them what they leave of the whole."""
        assert self.factors is not None
        triples = reduce(read * (g @ self.factors[0]))
        return {"triples": torch.cat([triples, reduce(tokens[:, None]) - triples.sum(1, keepdim=True)], dim=1)}

    def _full(self, x: Tensor, g: Tensor, kinds: set[str], reduce: Reduce) -> dict[str, Tensor]:
        forms: dict[str, Tensor] = {}
        inward, rows, tokens = None, [], None
        for outputs, delta in self.dense():
            part = g[:, outputs].to(delta.dtype)
            if "columns" in kinds:
                back = part @ delta
                inward = back if inward is None else inward.add_(back)
            if "rows" in kinds or "columns" not in kinds:
                product = (x.to(delta.dtype) @ delta.T).to(g.dtype).mul_(g[:, outputs])
                tokens = product.sum(1) if tokens is None else tokens.add_(product.sum(1))
                rows += [reduce(product)] if "rows" in kinds else []
        if inward is not None:
            product = inward.to(g.dtype).mul_(_wide(x))
            forms["columns"], tokens = reduce(product), product.sum(1) if tokens is None else tokens
        if rows:
            forms["rows"] = torch.cat(rows, dim=1)
        assert tokens is not None
        return forms | {"tokens": tokens}


@dataclass(slots=True, eq=False)
class NormRule(ModuleRule):
    """RMSNorm and LayerNorm: <g, x_hat * Delta_gain + Delta_bias>, whether the gain is w or 1 + w."""

    gain: Tensor | None
    bias: Tensor | None
    targets: list[tuple[str, int]]
    heads: int = 0

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, bool]:
        """The normalised input, and whether its heads stand before its tokens."""
        x = inputs[0].detach()
        return normalised(module, x), self.heads > 0 and heads_first(x, self.heads)

    def meet(self, kept: tuple[Tensor, bool], gradient: Tensor, reduce: Reduce) -> WeightShares:
        """One number a position, whole."""
        read, swap = kept
        g = _wide(gradient)
        g, read = (g.transpose(1, 2), read.transpose(1, 2)) if swap else (g, read)
        total = torch.zeros(g.shape[:-1], dtype=g.dtype, device=g.device)
        if self.gain is not None:
            total = total + (g * _wide(read)) @ self.gain
        if self.bias is not None:
            total = total + g @ self.bias
        return _whole(total, self.targets, reduce)


@dataclass(slots=True, eq=False)
class EmbeddingRule(ModuleRule):
    """Embedding: <g, Delta[token]> (times the module's own scale where it has one)."""

    ends: tuple[Tensor, Tensor]
    targets: list[tuple[str, int]]

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        """The change of the rows that were looked up."""
        ids = inputs[0]
        base, aligned = (_wide(end[ids.to(end.device)]).to(ids.device) for end in self.ends)
        scale = getattr(module, "embed_scale", None)
        return (aligned - base) if scale is None else (aligned - base) * scale

    def meet(self, kept: Tensor, gradient: Tensor, reduce: Reduce) -> WeightShares:
        """One number a position, whole."""
        return _whole((_wide(gradient) * kept).sum(-1), self.targets, reduce)


@dataclass(slots=True, eq=False)
class GeneralRule(ModuleRule):
    """Any other module: its output's derivative along the change, by forward-mode differentiation of the module.

    Experts' 3-D weights and their router come here. Of a module with several outputs each has its derivative.
    """

    change: dict[str, Tensor]
    targets: list[tuple[str, int]]
    channels_first: bool = False
    experts_first: bool = False

    def __post_init__(self) -> None:
        self.general = True

    def keep_call(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """df/dtheta Delta at this input; of several outputs a tuple, None for those without a derivative."""
        held = {name: module.get_parameter(name).detach() for name in self.change}
        along = {name: self.change[name].to(held[name]) for name in held}
        places: list[int] = []
        count = 0

        def call(weights: dict[str, Tensor]) -> Any:
            nonlocal count
            output = torch.func.functional_call(module, weights, inputs, named)
            if not isinstance(output, tuple):
                return output
            count = len(output)
            places[:] = [n for n, one in enumerate(output) if isinstance(one, Tensor) and one.is_floating_point()]
            return tuple(output[n] for n in places)

        found = torch.func.jvp(call, (held,), (along,))[1]
        if not count:
            return found
        by_place = dict(zip(places, found, strict=True))
        return tuple(by_place.get(n) for n in range(count))

    def meet(self, kept: Tensor, gradient: Tensor, reduce: Reduce) -> WeightShares:
        """One number a position, whole."""
        product = _wide(gradient) * _wide(kept)
        if self.channels_first and product.ndim == 3:  # a convolution: [batch, channel, position], padded at the end
            product = product.transpose(1, 2)[:, : reduce.shape[1] if reduce.shape else None]
        total = product.sum(-1)
        if self.experts_first and total.numel() > reduce.positions:  # every expert sees every token (Llama 4)
            total = total.reshape(-1, reduce.positions).sum(0)
        return _whole(total, self.targets, reduce)


def rule_for(module: nn.Module, role: ModuleRole, difference: Difference, layout: Layout) -> ModuleRule:
    """Return the rule of a module by its type; types without one are differentiated forward."""
    component = layout.names["component"].index(component_name(role))
    shared = (role.name, component, role.role == "unembed")
    if is_matrix(module):
        return _matrix(shared, module, difference, layout)
    weights = {p: difference.change(role.name, p) for p in difference.parameters(role.name)}
    device = next(module.parameters()).device
    weights = {p: change.to(device) for p, change in weights.items()}
    first = next(iter(weights))
    targets = [(level, layout.owners(level, role.name, first)[0][0]) for level in layout.levels]
    if type(module) is nn.Embedding or hasattr(module, "embed_scale"):
        ends = [
            m.model.get_submodule(role.name).weight.detach() for m in (difference.pair.base, difference.pair.aligned)
        ]
        return EmbeddingRule(*shared, (ends[0], ends[1]), targets)
    if is_norm(module):
        heads = {"q_norm": difference.anatomy.n_heads, "k_norm": difference.anatomy.n_kv_heads}.get(role.role, 0)
        return NormRule(*shared, weights.get("weight"), weights.get("bias"), targets, heads)
    return GeneralRule(*shared, weights, targets, isinstance(module, nn.Conv1d), role.role == "experts")


def heads_first(x: Tensor, heads: int) -> bool:
    """Whether a norm of queries or keys reads [batch, head, token, d_head] and not [batch, token, head, d_head].

    Where as many heads as tokens leave the shape undecided, the strides tell a transposed view.
    """
    if x.ndim != 4 or heads not in x.shape[1:3]:
        return False
    if x.shape[1] != x.shape[2]:
        return x.shape[1] == heads
    return x.stride(1) < x.stride(2)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a LayerNorm or RMSNorm whose output is affine in its gain and bias over the last axis."""
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "weight")


def normalised(module: nn.Module, x: Tensor) -> Tensor:
    """The input of a norm, normalised as the module itself does it: its output at gain 1 less that at gain 0."""
    ends = []
    for gain in (1.0, 0.0):
        weights = {name: torch.full_like(p, gain if name == "weight" else 0.0) for name, p in module.named_parameters()}
        ends.append(torch.func.functional_call(module, weights, (x,)))
    return ends[0] - ends[1]


def _matrix(shared: tuple[str, int, bool], module: nn.Module, difference: Difference, layout: Layout) -> MatrixRule:
    name = shared[0]
    device = next(module.parameters()).device
    biased = "bias" in difference.parameters(name) and difference.differs(name, "bias")
    bias = filled(difference.change(name, "bias").to(device), module) if biased else None
    shape = tuple(difference.shape(name))
    plan = [_on(_plan(level, name, layout, shape), device) for level in layout.levels]
    factors = None
    if difference.low_rank(name) or any(kind == "triples" for _, kind, _, _ in plan):
        u, s, vh = difference.triples(name)
        factors = (filled(u.to(device), module), (s[:, None] * vh).to(device))
    exact = factors is not None and not difference.has_rest(name)
    dense = dense_change(module, name, difference)
    return MatrixRule(*shared, factors, exact, dense, bias, plan)


def _on(
    plan: tuple[str, str, Columns | int, Columns | int | None], device: torch.device
) -> tuple[str, str, Columns | int, Columns | int | None]:
    """A plan with its column numbers on a device."""
    level, kind, columns, bias = plan
    columns, bias = (c.to(device) if isinstance(c, Tensor) else c for c in (columns, bias))
    return level, kind, columns, bias


def _plan(
    level: str, name: str, layout: Layout, shape: tuple[int, ...]
) -> tuple[str, str, Columns | int, Columns | int | None]:
    owners = layout.owners(level, name, "weight")
    bias_owners = layout.owners(level, name, "bias")
    bias: Columns | int | None = None
    if bias_owners:
        bias = bias_owners[0][0] if bias_owners[0][1].rows is None else _spread(bias_owners, "rows", shape[0])
    if not owners:  # a weight without singular triples: its bias alone has changed
        return level, "nothing", slice(0, 0), bias
    part = owners[0][1]
    if part.triple is not None or part.rest:
        return level, "triples", slice(owners[0][0], owners[0][0] + len(owners)), bias
    for kind, size in (("rows", shape[0]), ("columns", shape[1])):
        if getattr(part, kind) is not None:
            return level, kind, _spread(owners, kind, size), bias
    return level, "whole", owners[0][0], bias


def _spread(owners: list[tuple[int, Part]], kind: str, size: int) -> Tensor:
    """Column number of the unit that owns each row (or each column) of a weight."""
    index = torch.full((size,), -1, dtype=torch.int64)
    for column, part in owners:
        index[torch.as_tensor(getattr(part, kind))] = column
    assert bool((index >= 0).all()), "a level must own every slice of a weight"
    return index


def _columns(columns: Columns | int) -> Columns:
    return slice(columns, columns + 1) if isinstance(columns, int) else columns


def _whole(total: Tensor, targets: list[tuple[str, int]], reduce: Reduce) -> WeightShares:
    tokens = total.reshape(reduce.positions, -1).sum(1)
    rows = reduce(tokens[:, None])
    return WeightShares([(level, slice(column, column + 1), rows) for level, column in targets], tokens)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
