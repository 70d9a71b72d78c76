"""A model walked from base to aligned in place: theta(t) = base + t (aligned - base), put back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

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
    """

    model: Any
    ends: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    t: float = float("nan")

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
            self.t = t
        return self.model


@contextmanager
def walk(pair: ModelPair) -> Iterator[Walk]:
    """Yield a walk of the pair; on leaving, every weight is what it was, to the bit.

    The model that is moved is the base (the aligned one where only the base ties its embeddings).

    Raises:
        TaxlensError: a weight of either model is not finite.
    """
    base, aligned = pair.base.model, pair.aligned.model
    moved = aligned if pair.base.anatomy.tied and not pair.aligned.anatomy.tied else base
    names = [name for name, _ in moved.named_parameters()]
    held = [dict(model.named_parameters(remove_duplicate=False)) for model in (moved, base, aligned)]
    path = Walk(moved)
    originals: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    for name in names:
        parameter, start, end = (h[name] for h in held)
        if torch.equal(start.data, end.data):
            continue
        if not bool(torch.isfinite(end.data - start.data).all()):
            rows = [("weight", name)]
            raise TaxlensError(explain("a weight is not finite.", rows, "check the checkpoint."))
        originals.append((parameter, parameter.data))
        target = end.data.to(start.device)
        path.ends.append((parameter, start.data, target, torch.empty_like(start.data)))
    experts = moved.config._experts_implementation if moved._can_set_experts_implementation() else None
    try:
        if experts is not None:
            moved.set_experts_implementation("eager")  # grouped kernels have no forward-mode derivative
        yield path
    finally:
        if experts is not None:
            moved.set_experts_implementation(experts)
        for parameter, data in originals:
            parameter.data = data
