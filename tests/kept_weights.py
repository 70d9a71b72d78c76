"""A copy of a model's weights, to see later that nothing was left changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def untouched(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of every parameter, to check later by `same_weights` that nothing was left changed."""
    return {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}


def same_weights(model: Any, kept: Mapping[str, torch.Tensor]) -> bool:
    """Whether every parameter equals the copy bit for bit."""
    return all(torch.equal(p, kept[name]) for name, p in model.named_parameters(remove_duplicate=False))
