"""Run the other model of a pair on whatever the first is given, and hand its activations to hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from taxlens.activations.models.anatomy import backbone_of

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a module's call."""

Change = Callable[[torch.Tensor], torch.Tensor]
"""A hidden state [batch, position, d] to what replaces it."""


@dataclass(slots=True, eq=False)
class Seen:
    """What the other model did on the present batch.

    Args:
        calls: module name to the arguments it was called with.
        outputs: module name to the hidden states that it gave, [batch, position, d].
        positions: position of every token of the batch, int64 [batch, position].
    """

    calls: dict[str, Call] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    positions: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def twin(model: Any, other: Any, watch: Mapping[str, nn.Module]) -> Iterator[Seen]:
    """While open, every forward pass of `model` first runs `other`'s backbone on the same tokens.

    Args:
        model: the model that will be called.
        other: the model that is run beside it, without gradient.
        watch: name to module of `other` whose call and output are kept for the present batch.

    Yields:
        Seen, refilled before each pass of `model`.
    """
    seen = Seen()

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen.calls[name] = (args, kwargs)
            seen.outputs[name] = hidden(output)

        return hook

    def run(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        wanted = {k: kwargs[k] for k in ("input_ids", "attention_mask", "position_ids") if k in kwargs}
        ids = wanted["input_ids"]
        positions = wanted.get("position_ids")
        seen.positions = torch.arange(ids.shape[1]).expand(ids.shape) if positions is None else positions
        with torch.no_grad():
            backbone_of(other)(**wanted, use_cache=False)

    handles = [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in watch.items()]
    handles.append(model.register_forward_pre_hook(run, with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced_input(module: nn.Module, change: Change) -> Iterator[None]:
    """While open, the hidden states that a module is called with are replaced by `change(hidden)`."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        if args:
            return (change(args[0]).to(args[0].device), *args[1:]), kwargs
        stream = kwargs["hidden_states"]
        return args, kwargs | {"hidden_states": change(stream).to(stream.device)}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replaced_output(module: nn.Module, change: Change) -> Iterator[None]:
    """While open, the hidden states that a module gives are replaced by `change(hidden)`."""

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]).to(output[0].device), *output[1:])
        return change(output).to(output.device)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def call_on(call: Call, device: torch.device) -> Call:
    """A module's call with its tensors on a device: the two models may lie over several devices in two ways."""
    return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, call)


def hidden(output: Any) -> torch.Tensor:
    """The hidden states in a module's output, which may be a tuple that starts with them."""
    return output[0] if isinstance(output, tuple) else output
