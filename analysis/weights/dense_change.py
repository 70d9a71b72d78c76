"""The change of one weight, whole, formed anew each time it is asked for: nothing of its size is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from taxlens.analysis.weights.leading_triples import HELD
from taxlens.analysis.weights.units import common_rows

if TYPE_CHECKING:
    from taxlens.analysis.weights.units import Difference

Tensor = torch.Tensor

BLOCK = 1 << 20
"""Numbers of a change that are formed at once on a CPU (4 MB in float32)."""


Blocks = Callable[[], Iterator[tuple[slice, Tensor]]]
"""Which outputs, and the change of their weights [outputs, in], block after block."""


def dense_change(module: nn.Module, name: str, difference: Difference) -> Blocks:
    """A function that forms Delta from the two ends' own tensors, some outputs at a time, wherever the model is walked to.

    A vocabulary's change is half of a small model: it is never held whole. Of a weight that the checkpoint stores as
    [in, out], and on a GPU, where one product is faster than several, all outputs come at once up to `HELD` numbers.
    On a CPU every block of every weight is formed in the same place: it holds until the next is asked for.
    """
    device, transposed = next(module.parameters()).device, difference.transposed(name)
    ends = [m.model.get_submodule(name).weight.detach() for m in (difference.pair.base, difference.pair.aligned)]
    common = common_rows(*ends)

    # a GPU multiplies 16 bits with sums in 32 many times faster; the difference of two 16-bit ends is rounded once
    narrow = device.type != "cpu" and common[0].dtype in (torch.bfloat16, torch.float16)

    outputs = module.weight.shape[1] if transposed else module.weight.shape[0]
    most = HELD if device.type != "cpu" else BLOCK
    step = outputs if transposed else max(1, most // max(1, common[0].shape[1]))

    def change() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, outputs, step):
            rows = slice(start, min(start + step, outputs))
            mine = [one if transposed else one[rows] for one in common]
            end, before = (one.to(device) if narrow else wide(one).to(device) for one in (mine[1], mine[0]))
            delta = torch.sub(end, before, out=_place(end)) if device.type == "cpu" else end - before
            if transposed:
                yield rows, delta.T
            else:  # rows that only the walked model has
                lacking = rows.stop - rows.start - len(delta)
                yield rows, torch.cat([delta, delta.new_zeros((lacking, delta.shape[1]))]) if lacking else delta

    return change


def _place(like: Tensor) -> Tensor:
    """Memory of a tensor's size and dtype that is used again and again: what is taken anew each time piles up."""
    held = _PLACES.get(like.dtype)
    if held is None or held.numel() < like.numel():
        held = _PLACES[like.dtype] = like.new_empty(max(like.numel(), BLOCK))
    return held[: like.numel()].view(like.shape)


_PLACES: dict[torch.dtype, Tensor] = {}


def filled(change: Tensor, module: nn.Module) -> Tensor:
    """A change of the outputs that both vocabularies have, with zeros for those that the walked model has more."""
    extra = module.weight.shape[0] - change.shape[0] if isinstance(module, nn.Linear) else 0
    return torch.cat([change, change.new_zeros((extra, *change.shape[1:]))]) if extra > 0 else change


def wide(x: Tensor) -> Tensor:
    """A tensor in float32, or in float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()
