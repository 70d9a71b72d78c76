"""Reading and replacing activations of a Hugging Face model, hook by hook, always undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from taxlens.activations.hooks.sites import Address, site_shape, tap
from taxlens.activations.models.anatomy import Anatomy

Read = Callable[[Address, torch.Tensor], None]
Change = Callable[[torch.Tensor], torch.Tensor]


class StopForward(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a forward pass when everything that was asked for has been read."""


@contextmanager
def reading(model: nn.Module, parts: Anatomy, asked: Sequence[Address], read: Read) -> Iterator[None]:
    """Inside the block, every forward pass hands the activations at `asked` to `read`, and changes nothing.

    Args:
        model: a Hugging Face model.
        parts: its anatomy.
        asked: the addresses.
        read: called with (address, tensor [batch, token, ...]); it must not change the tensor in place. At
            `head_z` the tensor is [batch, token, head, d_head].
    """
    handles = []
    try:
        for address in asked:
            handles += _attach_reader(model, parts, address, read)
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replacing(model: nn.Module, parts: Anatomy, address: Address, change: Change) -> Iterator[None]:
    """Inside the block, the activation at one address is replaced by `change(activation)`.

    Args:
        model: a Hugging Face model.
        parts: its anatomy.
        address: where.
        change: from [batch, token, ...] to the same shape (at `head_z`: [batch, token, head, d_head]).
    """
    place = tap(address, parts, model)
    split = site_shape(address.site, parts) if address.site == "head_z" else None

    scale, shape = _scale(address, parts), _Shape(parts, address)

    def changed(x: torch.Tensor) -> torch.Tensor:
        shaped = shape.restored(x.unflatten(-1, split) if split else x)
        if scale == 1.0:
            return change(shaped).reshape(x.shape)
        return (change(shaped * scale) / scale).reshape(x.shape)

    def on_input(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed(kwargs["hidden_states"])}

    def on_output(_module: nn.Module, _args: tuple, output: Any) -> Any:
        return (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)

    if place.on_input:
        handle = place.module.register_forward_pre_hook(on_input, with_kwargs=True)
    else:
        handle = place.module.register_forward_hook(on_output)
    try:
        with shape:
            yield
    finally:
        handle.remove()


@torch.no_grad()
def run_backbone(parts: Anatomy, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor | None:
    """Run the model without its output head on one padded batch; ids, mask, positions are [batch, token].

    Returns:
        The final hidden states [batch, token, d_model], or None if a hook stopped the pass early.
    """
    try:
        return parts.backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
    except StopForward:
        return None


@torch.no_grad()
def run_logits(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Run the whole model on one padded batch and return its logits [batch, token, vocabulary]."""
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits


def _scale(address: Address, parts: Anatomy) -> float:
    """What a part's output is multiplied by before it joins the stream."""
    return parts.residual_scale if address.site in ("attn_out", "mlp_out") else 1.0


class _Shape:
    """The batch shape of a block's input, for parts that see their tokens in one row (OPT's feed-forward part)."""

    def __init__(self, parts: Anatomy, address: Address) -> None:
        self.block = parts.blocks[address.layer]
        self.seen: tuple[int, ...] = ()
        self.handle: Any = None

    def __enter__(self) -> _Shape:
        self.handle = self.block.register_forward_pre_hook(self._look, with_kwargs=True, prepend=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Stop looking."""
        if self.handle is not None:
            self.handle.remove()

    def restored(self, x: torch.Tensor) -> torch.Tensor:
        """[batch * token, width] as [batch, token, width]; what has its batch already as it is."""
        return x.unflatten(0, self.seen) if x.ndim == 2 and self.seen else x

    def _look(self, _module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.seen = tuple(hidden.shape[:2])


def _attach_reader(model: nn.Module, parts: Anatomy, address: Address, read: Read) -> Sequence[Any]:
    place = tap(address, parts, model)
    split = site_shape(address.site, parts) if address.site == "head_z" else None
    scale, shape = _scale(address, parts), _Shape(parts, address)
    shape.__enter__()

    def hand_over(x: torch.Tensor) -> None:
        shaped = shape.restored(x.unflatten(-1, split) if split else x)
        read(address, shaped if scale == 1.0 else shaped * scale)

    # Both return None: a forward hook that returns anything else replaces what the module gives.
    def on_input(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        hand_over(args[0] if args else kwargs["hidden_states"])

    def on_output(_module: nn.Module, _args: tuple, output: Any) -> None:
        hand_over(output[0] if isinstance(output, tuple) else output)

    if place.on_input:
        return place.module.register_forward_pre_hook(on_input, with_kwargs=True), shape
    return place.module.register_forward_hook(on_output), shape
