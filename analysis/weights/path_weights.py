"""A model walked from base to aligned in place: theta(t) = base + t (aligned - base), put back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from taxlens.activations.models.anatomy import is_tied
from taxlens.analysis.weights.weight_edits import puts_back
from taxlens.core.errors import TaxlensError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair


@dataclass(slots=True, eq=False)
class Walk:
    """A model whose weights can be put anywhere on the straight path between a pair's.

    The pair's own tensors are only read; changed parameters point at one buffer each while the walk lasts.

    Args:
        model: the model that is moved.
        ends: for each changed parameter: (parameter, base tensor, aligned tensor, buffer).
        t: where the weights are now.
        buffers: module, name, base's and aligned's value of buffers that differ: the aligned's at t = 1, else the base's.
        rows: tokens that both models have an embedding for, where one has more; else None.
        grows: whether it is the aligned model that has more.
    """

    model: Any
    ends: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    t: float = float("nan")
    buffers: list[tuple[Any, str, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    rows: int | None = None
    grows: bool = True

    def to(self, t: float) -> Any:
        """Put the weights at theta(t) and return the model; t = 0 and 1 are the pair's own weights to the bit."""
        if t != self.t:
            with torch.no_grad():
                for parameter, base, aligned, buffer in self.ends:
                    if t in (0.0, 1.0):
                        parameter.data = aligned if t else base
                        continue
                    if base.dtype in (torch.float32, torch.float64):
                        torch.lerp(base, aligned, t, out=buffer)
                    else:
                        buffer.copy_(torch.lerp(base.float(), aligned.float(), t))
                    parameter.data = buffer
            for module, name, base, aligned in self.buffers:
                setattr(module, name, aligned if t == 1.0 else base)
            self.t = t
        return self.model


@contextmanager
def walk(pair: ModelPair) -> Iterator[Walk]:
    """Yield a walk of the pair; on leaving, every weight is what it was, to the bit.

    The model that is moved is the base (the aligned one where only the base ties its embeddings, and the one with the
    larger vocabulary where they differ). Rows that one of the two lacks stay as they are along the path: what they do is
    no change of a weight (`path.added_tokens`).

    Raises:
        TaxlensError: a weight of either model is not finite.
    """
    base, aligned = pair.base.model, pair.aligned.model
    sizes = [len(model.get_input_embeddings().weight) for model in (base, aligned)]
    moved = aligned if pair.base.anatomy.tied and not pair.aligned.anatomy.tied else base
    moved = moved if sizes[0] == sizes[1] else (base if sizes[0] > sizes[1] else aligned)
    path = Walk(moved, rows=None if sizes[0] == sizes[1] else min(sizes), grows=sizes[1] > sizes[0])
    originals: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    tied = _untied(moved) if is_tied(moved) and not (is_tied(base) and is_tied(aligned)) else None
    held = [dict(model.named_parameters(remove_duplicate=False)) for model in (moved, base, aligned)]
    names = [name for name, _ in moved.named_parameters()]
    for name in names:
        parameter, start, end = (h[name] for h in held)
        if start.shape != end.shape:
            start, end = _as_long(start, end), _as_long(end, start)
        target = end.data.to(start.device)  # the two models may lie over several devices in two ways
        if torch.equal(start.data, target):
            continue
        if not bool(torch.isfinite(target - start.data).all()):
            rows = [("weight", name)]
            raise TaxlensError(explain("a weight is not finite.", rows, "check the checkpoint."))
        originals.append((parameter, parameter.data))
        path.ends.append((parameter, start.data, target, torch.empty_like(start.data)))
    buffers = _buffers(path, base, aligned)
    experts = moved.config._experts_implementation if moved._can_set_experts_implementation() else None
    with puts_back(moved):
        try:
            if experts is not None:
                moved.set_experts_implementation("eager")  # grouped kernels have no forward-mode derivative
            yield path
        finally:
            if experts is not None:
                moved.set_experts_implementation(experts)
            for parameter, data in originals:
                parameter.data = data
            for module, name, value in buffers:
                setattr(module, name, value)
            if tied is not None:
                moved.get_output_embeddings().weight = tied


def _buffers(path: Walk, base: Any, aligned: Any) -> list[tuple[Any, str, torch.Tensor]]:
    """Saved buffers that differ between the two (a router's correction of its choice), put on the path; and as they are."""
    held = [dict(model.named_buffers()) for model in (path.model, base, aligned)]
    saved = path.model.state_dict().keys() & held[0].keys()
    kept = []
    for name in sorted(saved):
        own, start, end = (buffers[name] for buffers in held)
        if start.shape == end.shape and not torch.equal(start.to(end.device), end):
            place, _, last = name.rpartition(".")
            module = path.model.get_submodule(place)
            path.buffers.append((module, last, start.to(own.device), end.to(own.device)))
            kept.append((module, last, own))
    return kept


def _untied(model: Any) -> torch.nn.Parameter:
    """Give the output head a parameter of its own with the same values; returns the one that it had."""
    head = model.get_output_embeddings()
    tied = head.weight
    head.weight = torch.nn.Parameter(tied.data, requires_grad=False)
    return tied


def _as_long(short: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A vocabulary's tensor with the other's further rows after its own."""
    return torch.cat([short.data, other.data[len(short) :].to(short)]) if len(short) < len(other) else short
