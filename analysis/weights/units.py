"""Which slice of a weight difference each unit owns: components, heads, neurons, singular triples.

A unit is a name of attribution.csv; its parts say what it owns of which parameter, in the [out, in] orientation
whatever the checkpoint stores. The units of one level partition the difference: undoing all of them gives the base.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from taxlens.analysis.weights.leading_triples import (
    MOST,
    SHARE,
    BlockedChange,
    Triples,
    leading_triples,
    low_rank_triples,
    significant,
)
from taxlens.analysis.weights.weight_edits import generations
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.shared_work import active_part, shared
from taxlens.core.vocabularies import LEVELS

if TYPE_CHECKING:
    from taxlens.activations.models.anatomy import ModuleRole
    from taxlens.activations.models.pair import ModelPair

NOT_CUT = ("router", "mixer_dt_proj")
"""Roles whose weights are not cut into singular triples: they are not applied to an input alone."""

ORIGINALS: dict[tuple[int, str], torch.Tensor] = {}
"""Checkpoint tensors of the parameters that a mixture has changed at this moment, by module and name."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a unit owns of one parameter: rows, columns, one singular triple of it, or what the kept triples leave.

    Nothing named is all of it.
    """

    module: str
    parameter: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    triple: int | None = None
    rest: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A named group of weights: its component, layer (-1 outside the blocks), kind and parts."""

    name: str
    component: str
    layer: int
    kind: str
    parts: tuple[Part, ...]


class Difference:
    """The change from base to aligned, module by module, with its units and singular triples (cached).

    Args:
        pair: the two checkpoints, unedited at the time of every first read.
        share: share of a weight's energy that its kept triples hold.
        most: most triples kept of one weight; a weight whose smaller side is no longer keeps all.
    """

    def __init__(self, pair: ModelPair, *, share: float = SHARE, most: int = MOST) -> None:
        self.pair = pair
        self.share, self.most = share, most
        self.anatomy = pair.aligned.anatomy
        self._triples: dict[str, Triples] = {}
        self._rests: set[str] = set()
        self._differs: dict[tuple[str, str], bool] = {}
        self._low_rank: dict[str, bool] = {}
        self._units: dict[str, dict[str, Unit]] = {}
        self.made_of = generations(pair)

    def parameters(self, module: str) -> list[str]:
        """Names of the parameters that a module holds itself ("weight", "bias")."""
        return [name for name, _ in self.pair.aligned.model.get_submodule(module).named_parameters(recurse=False)]

    def transposed(self, module: str) -> bool:
        """Whether the checkpoint stores the module's weight as [in, out] (GPT-2's Conv1D)."""
        return isinstance(self.pair.aligned.model.get_submodule(module), Conv1D)

    def change(self, module: str, parameter: str) -> torch.Tensor:
        """Aligned minus base of one parameter, [out, in] or [out], float32 (float64 for float64 models).

        On the device of the aligned model's module. Of embeddings and output heads with different numbers of rows:
        of the rows that both have.
        """
        aligned, base = self._ends(module, parameter)
        wide = torch.float64 if aligned.dtype == torch.float64 else torch.float32
        full = aligned.to(wide) - base.to(aligned.device, wide)
        return full.T if self.transposed(module) and full.ndim == 2 else full

    def shape(self, module: str) -> tuple[int, int]:
        """[out, in] of a module's weight change."""
        return self._blocked(module).shape

    def changed(self, module: str) -> bool:
        """Whether any parameter of the module differs between the two checkpoints."""
        return any(self.differs(module, p) for p in self.parameters(module))

    def differs(self, module: str, parameter: str) -> bool:
        """Whether a parameter differs between the two checkpoints, in the rows that both have."""
        if (module, parameter) not in self._differs:
            aligned, base = self._ends(module, parameter)
            self._differs[module, parameter] = not torch.equal(aligned, base.to(aligned.device))
        return self._differs[module, parameter]

    def triples(self, module: str) -> Triples:
        """Leading singular triples of a module's weight change: U [out, r], S [r], Vh [r, in], on its device.

        All that stand above rounding where the change is of low rank (a merged adapter) or the weight is small;
        else the fewest that hold `share` of its energy, at most `most`. What they leave is the module's remainder
        (`rest_of`). `full_triples` gives all of them.
        """
        if not self.low_rank(module) and module not in self._triples:
            change = self._blocked(module)
            if min(change.shape) <= self.most:
                return self.full_triples(module)
            self._triples[module] = leading_triples(change, share=self.share, most=self.most)
            self._rests.add(module)
        return self._triples[module]

    def full_triples(self, module: str) -> Triples:
        """All singular triples of a module's weight change above rounding, in place of the leading ones from now on.

        A full decomposition in float64: about 30 times the work of the leading ones, and 28 bytes a weight. Units
        that were named before it keep their meaning only if none was asked for at level "singular".
        """
        full, noise = self.change(module, "weight"), self._noise(module)
        found = torch.linalg.svd(full.double(), full_matrices=False)
        self._triples[module] = significant(found, tuple(full.shape), full.dtype, noise)
        self._rests.discard(module)
        return self._triples[module]

    def has_rest(self, module: str) -> bool:
        """Whether a module's triples leave something of its change over, beyond rounding."""
        self.triples(module)
        return module in self._rests

    def rest_of(self, module: str) -> torch.Tensor:
        """What the module's triples leave of its weight change, [out, in]."""
        u, s, vh = self.triples(module)
        return torch.addmm(self.change(module, "weight"), u * s, vh, alpha=-1)

    def low_rank(self, module: str) -> bool:
        """Whether a module's weight change is, up to rounding of the weights, of at most a quarter of full rank."""
        if module not in self._low_rank:
            change, noise = self._blocked(module), self._noise(module)
            shared = self._adapter()  # of an adapter all triples are kept, up to the most of any matrix
            found = low_rank_triples(change, noise, most=MOST if shared else min(64, self.most))
            self._low_rank[module] = found is not None
            if found is not None:
                dtype = torch.float64 if change.aligned.dtype == torch.float64 else torch.float32
                self._triples[module] = significant(found, change.shape, dtype, noise)
        return self._low_rank[module]

    def _adapter(self) -> bool:
        """Whether aligned is an adapter on base: the two models share memory."""
        ends = [m.model.get_input_embeddings().weight for m in (self.pair.aligned, self.pair.base)]
        return ends[0] is ends[1] or ends[0].data_ptr() == ends[1].data_ptr()

    def _ends(self, module: str, parameter: str) -> list[torch.Tensor]:
        """The parameter of aligned and of base, as the checkpoints have it, in the rows that both have."""
        ends = [_own(m.model.get_submodule(module), parameter) for m in (self.pair.aligned, self.pair.base)]
        return [end.detach() for end in common_rows(*ends)]

    def _blocked(self, module: str) -> BlockedChange:
        return BlockedChange(*self._ends(module, "weight"), transposed=self.transposed(module))

    def _noise(self, module: str) -> float:
        """Frobenius norm that rounding both ends' weights to their dtype can put into the change."""
        weight = self.pair.aligned.model.get_submodule(module).weight.detach()
        return float(torch.finfo(weight.dtype).eps * BlockedChange(weight, None).energy() ** 0.5)

    def units(self, level: str) -> dict[str, Unit]:
        """The units of a level by name, in the order of the network."""
        one_of(level, LEVELS, what="level")
        if level not in self._units:
            if level == "singular" and active_part() is not None:
                self._share_triples()
            self._units[level] = {unit.name: unit for unit in _cut(self, level)}
        return self._units[level]

    def _share_triples(self) -> None:
        """Have all weights' triples found by the workers that take part, each some weights."""
        modules = [
            role.name for role in self.anatomy.modules
            if is_matrix(self.pair.aligned.model.get_submodule(role.name)) and self.differs(role.name, "weight")
        ]  # fmt: skip

        def one(module: str) -> dict[str, Any]:
            found = self.triples(module)
            return {"triples": found, "low": self._low_rank.get(module, False), "rest": module in self._rests}

        name = f"triples of {self.pair.aligned.sha256} less {self.pair.base.sha256}"
        for module, found in zip(modules, shared(name, modules, one), strict=True):
            device = self.pair.aligned.model.get_submodule(module).weight.device
            self._triples[module] = tuple(part.to(device) for part in found["triples"])
            self._low_rank[module] = found["low"]
            self._rests |= {module} if found["rest"] else set()

    def unit(self, name: str, *, level: str | None = None) -> Unit:
        """The named unit of a level; without a level, of the first level that has the name.

        "L.attn.rest" and "L.mlp.rest" hold other weights at level head, neuron and singular: give the level.

        Raises:
            UsageError: the pair has no such unit.
        """
        levels = [level] if level else [one for one in LEVELS if _may_be(name, one)]
        for one in levels:
            if name in self.units(one):
                return self.units(one)[name]
        near = [unit for one in (levels if level else LEVELS[:2]) for unit in self.units(one)]
        raise UsageError(_unknown(name, near))

    def moved(self, unit: Unit) -> bool:
        """Whether any parameter that the unit has a part of differs between the two checkpoints."""
        return any(self.differs(p.module, p.parameter) for p in unit.parts)

    def energy(self, name: str, *, level: str | None = None) -> float:
        """Squared Frobenius norm of the unit's own change."""
        total = 0.0
        for part in self.unit(name, level=level).parts:
            if part.triple is not None:
                total += float(self.triples(part.module)[1][part.triple]) ** 2
                continue
            full = self.rest_of(part.module) if part.rest else self.change(part.module, part.parameter)
            full = full if part.rows is None else full[part.rows]
            full = full if part.columns is None else full[:, part.columns]
            total += float((full.double() ** 2).sum())
        return total


def common_rows(one: torch.Tensor, two: torch.Tensor) -> list[torch.Tensor]:
    """The rows (first axis) that both tensors have: all of them, but for vocabularies of different length."""
    rows = min(len(one), len(two)) if one.ndim and two.ndim else 0
    return [one, two] if one.shape == two.shape else [one[:rows], two[:rows]]


def _own(module: Any, parameter: str) -> torch.Tensor:
    """A module's parameter as the checkpoint has it, also while a mixture is open."""
    return ORIGINALS.get((id(module), parameter), getattr(module, parameter))


def difference_of(pair: ModelPair) -> Difference:
    """The pair's difference, kept as long as the pair lives and its weights are what they were; made anew if not."""
    kept = vars(pair.aligned).get("_difference")  # beside the model, as its cached properties: it lives as long
    if kept is None or kept.pair.base.model is not pair.base.model or kept.made_of != generations(pair):
        kept = vars(pair.aligned)["_difference"] = Difference(pair)
    return kept


def is_matrix(module: nn.Module) -> bool:
    """Whether a module gives its input times its weight, plus its bias, and nothing else."""
    plain = type(module).forward is nn.Linear.forward or type(module).__name__ == "FalconLinear"
    return isinstance(module, Conv1D) or (isinstance(module, nn.Linear) and plain)


def component_name(role: ModuleRole) -> str:
    """The component that a module belongs to: "embed", "unembed", "final_norm", "L.attn", "L.mlp", "L.norm"."""
    if role.layer is None:
        return {"norm": "final_norm", "embed": "embed", "unembed": "unembed"}[role.kind]
    return f"{role.layer}.{role.kind}"


def level_of(names: Iterable[str]) -> str | None:
    """The level that a set of unit names is of, as far as their form says: "singular", "neuron", "head" or None."""
    names = list(names)
    for level, mark in (("singular", r"\.s\d+$"), ("neuron", r"\.n\d+$"), ("head", r"\.(h|kv)\d+$")):
        if any(re.search(mark, name) for name in names):
            return level
    return None


def _may_be(name: str, level: str) -> bool:
    """Whether a name can be of the level by its form alone: spares the singular values where nothing asks for them."""
    if name.endswith(".rest"):
        return level != "component"
    return level == (level_of([name]) or "component")


def _unknown(name: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, options, n=5, cutoff=0.4)
    rows = [("nearest", ", ".join(near) or "none"), ("units", f"{len(options)}, first {', '.join(options[:6])}")]
    return explain(f"the pair has no unit {name!r}.", rows, near[0] if near else None)


def _cut(difference: Difference, level: str) -> list[Unit]:
    owned: dict[str, tuple[ModuleRole, list[Part]]] = {}
    for role in difference.anatomy.modules:
        for parameter in difference.parameters(role.name):
            for name, part in _shares(difference, role, parameter, level):
                owned.setdefault(name, (role, []))[1].append(part)
    return [
        Unit(name, component_name(role), -1 if role.layer is None else role.layer, role.kind, tuple(parts))
        for name, (role, parts) in owned.items()
    ]


def _shares(difference: Difference, role: ModuleRole, parameter: str, level: str) -> list[tuple[str, Part]]:
    component = component_name(role)
    whole = Part(role.name, parameter)
    inside = role.kind in ("attn", "mlp")
    if level == "head" and role.kind == "attn":
        return _by_head(difference, role, parameter, component)
    if level == "neuron" and role.kind == "mlp":
        return _by_neuron(difference, role, parameter, component)
    if level == "singular" and inside:
        matrix = is_matrix(difference.pair.aligned.model.get_submodule(role.name))
        if parameter != "weight" or not matrix or role.role in NOT_CUT:
            return [(f"{component}.rest", whole)]
        rank = len(difference.triples(role.name)[1])
        kept = [(f"{component}.{role.role}.s{k}", Part(role.name, parameter, triple=k)) for k in range(rank)]
        left = [(f"{component}.{role.role}.rest", Part(role.name, parameter, rest=True))]
        return kept + (left if difference.has_rest(role.name) else [])
    return [(component, whole)]


def _by_head(difference: Difference, role: ModuleRole, parameter: str, component: str) -> list[tuple[str, Part]]:
    anatomy = difference.anatomy
    heads, groups, width = anatomy.n_heads, anatomy.n_kv_heads, anatomy.d_head
    rest = [(f"{component}.rest", Part(role.name, parameter))]
    if role.role in ("q", "k", "v"):
        count = heads if role.role == "q" else groups
        rows = len(difference.change(role.name, parameter))
        if rows % count:
            return rest
        blocks = _blocks(count, rows // count)  # of a query and its gate, where the family has one
        names = _head_names(component, role.role, heads, groups)
        return [(name, Part(role.name, parameter, rows=rows)) for name, rows in zip(names, blocks)]
    if role.role == "o" and parameter == "weight":
        return [
            (f"{component}.h{h}", Part(role.name, parameter, columns=columns))
            for h, columns in enumerate(_blocks(heads, width))
        ]
    if role.role == "qkv":
        shares = []
        for kind, rows in _fused_rows(difference, heads, groups, width):
            names = _head_names(component, kind, heads, groups)
            shares += [(name, Part(role.name, parameter, rows=r)) for name, r in zip(names, rows)]
        return shares
    return rest


def _head_names(component: str, role: str, heads: int, groups: int) -> list[str]:
    if role == "q" or heads == groups:
        return [f"{component}.h{h}" for h in range(heads)]
    return [f"{component}.kv{g}" for g in range(groups)]


def _blocks(count: int, width: int, start: int = 0) -> list[np.ndarray]:
    return [np.arange(start + i * width, start + (i + 1) * width) for i in range(count)]


def _fused_rows(difference: Difference, heads: int, groups: int, width: int) -> Sequence[tuple[str, list[np.ndarray]]]:
    """Output rows of q, k and v, head by head, in either layout of a fused module."""
    if difference.anatomy.qkv == "by_head":
        return [
            (kind, [block + 3 * h * width for h, block in enumerate(_blocks(1, width, i * width) * heads)])
            for i, kind in enumerate("qkv")
        ]
    if difference.anatomy.qkv == "by_group":
        each = heads // groups
        block = (each + 2) * width
        queries = [b for g in range(groups) for b in _blocks(each, width, g * block)]
        ends = [[_blocks(1, width, g * block + (each + i) * width)[0] for g in range(groups)] for i in range(2)]
        return [("q", queries), ("k", ends[0]), ("v", ends[1])]
    starts = {"q": 0, "k": heads * width, "v": (heads + groups) * width}
    return [(kind, _blocks(heads if kind == "q" else groups, width, start)) for kind, start in starts.items()]


def _by_neuron(difference: Difference, role: ModuleRole, parameter: str, component: str) -> list[tuple[str, Part]]:
    if role.role not in ("gate", "up", "gate_up", "down") or (role.role == "down" and parameter != "weight"):
        return [(f"{component}.rest", Part(role.name, parameter))]
    size = difference.change(role.name, parameter).shape[1 if role.role == "down" else 0]
    if role.role == "down":
        return [(f"{component}.n{i}", Part(role.name, parameter, columns=np.array([i]))) for i in range(size)]
    if role.role == "gate_up":
        half = size // 2
        return [(f"{component}.n{i}", Part(role.name, parameter, rows=np.array([i, i + half]))) for i in range(half)]
    return [(f"{component}.n{i}", Part(role.name, parameter, rows=np.array([i]))) for i in range(size)]
