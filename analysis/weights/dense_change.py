"""The change of one weight, whole, formed anew each time it is asked for: nothing of its size is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from taxlens.analysis.weights.units import common_rows

if TYPE_CHECKING:
    from taxlens.analysis.weights.units import Difference

Tensor = torch.Tensor


def dense_change(module: nn.Module, name: str, difference: Difference) -> Callable[[], Tensor]:
    """A function that forms Delta [out, in] from the two ends' own tensors, wherever the model is walked to."""
    device, transposed = next(module.parameters()).device, difference.transposed(name)
    ends = [m.model.get_submodule(name).weight.detach() for m in (difference.pair.base, difference.pair.aligned)]
    common = common_rows(*ends)

    # a GPU multiplies 16 bits with sums in 32 many times faster; the difference of two 16-bit ends is rounded once
    narrow = device.type != "cpu" and common[0].dtype in (torch.bfloat16, torch.float16)

    def change() -> Tensor:
        end, start = (one.to(device) if narrow else wide(one).to(device) for one in (common[1], common[0]))
        delta = end - start
        return delta.T if transposed else filled(delta, module)

    return change


def filled(change: Tensor, module: nn.Module) -> Tensor:
    """A change of the outputs that both vocabularies have, with zeros for those that the walked model has more."""
    extra = module.weight.shape[0] - change.shape[0] if isinstance(module, nn.Linear) else 0
    return torch.cat([change, change.new_zeros((extra, *change.shape[1:]))]) if extra > 0 else change


def wide(x: Tensor) -> Tensor:
    """A tensor in float32, or in float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()
