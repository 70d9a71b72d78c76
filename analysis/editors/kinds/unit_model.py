"""The aligned model with differentiable coefficients on the units of its update: what editors of the update optimise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from taxlens.analysis.weights.units import Difference, Part, difference_of

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

Coefficients = Callable[[], torch.Tensor]
"""Gives how far each unit is undone now, [units], with gradient."""


@contextmanager
def unit_model(
    pair: ModelPair, names: Sequence[str], undo: Coefficients, *, level: str, difference: Difference | None = None
) -> Iterator[Any]:
    """Yield the aligned model whose weights are `aligned - sum of undo[k] * change of unit k`, differentiable in undo.

    Singular triples of a linear module act beside it, as a low-rank side path, so that no gradient of a dense weight is
    ever made; other parts change the parameter itself. `undo` is asked in every forward pass. Leaving puts everything
    back; tied embeddings must not be among the units.

    Args:
        pair: the two checkpoints.
        names: units of one level.
        undo: the coefficients.
        level: level of the units.
        difference: the pair's difference, where it is at hand.
    """
    difference = difference or difference_of(pair)
    model = pair.aligned.model
    owned: dict[str, list[tuple[int, Part]]] = {}
    for place, name in enumerate(names):
        for part in difference.unit(name, level=level).parts:
            owned.setdefault(part.module, []).append((place, part))
    handles, swapped = [], []
    try:
        for module, parts in owned.items():
            layer = model.get_submodule(module)
            triples = [(place, int(part.triple)) for place, part in parts if part.triple is not None]
            dense = [(place, part) for place, part in parts if part.triple is None]
            if triples:
                handles.append(layer.register_forward_hook(_side_path(difference, module, triples, undo)))
            if dense:
                keys = {part.parameter for _, part in dense}
                swapped += [(layer, key, layer._parameters[key]) for key in keys]
                handles.append(layer.register_forward_pre_hook(_dense(difference, module, dense, undo, layer)))
        yield model
    finally:
        for handle in handles:
            handle.remove()
        for layer, key, parameter in swapped:
            layer.__dict__.pop(key, None)
            layer._parameters[key] = parameter


def _side_path(difference: Difference, module: str, triples: list[tuple[int, int]], undo: Coefficients) -> Any:
    u, s, vh = difference.triples(module)
    places = torch.tensor([place for place, _ in triples])
    index = torch.tensor([k for _, k in triples])
    left, right, size = u[:, index], vh[index], s[index]

    def hook(_layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        take = (undo()[places].to(size) * size).to(x.device, x.dtype)
        down = (x @ right.to(x.device, x.dtype).T) * take
        return output - down @ left.to(x.device, x.dtype).T

    return hook


def _dense(
    difference: Difference, module: str, parts: list[tuple[int, Part]], undo: Coefficients, layer: nn.Module
) -> Any:
    """Before the layer runs, its parameters are replaced by the mixture at the present coefficients."""
    grouped: dict[str, list[tuple[int, Part]]] = {}
    for place, part in parts:
        grouped.setdefault(part.parameter, []).append((place, part))
    kept = {key: layer._parameters[key] for key in grouped}
    changes = {key: difference.change(module, key) for key in grouped}

    def hook(_layer: nn.Module, _inputs: tuple[Any, ...]) -> None:
        now = undo()
        for key, mine in grouped.items():
            parameter, change = kept[key], changes[key]
            weight = torch.zeros_like(change)
            for place, part in mine:
                weight = weight + now[place].to(change) * _sliced(change, part)
            stored = weight.T if difference.transposed(module) and weight.ndim == 2 else weight
            layer._parameters.pop(key, None)
            layer.__dict__[key] = parameter.detach() - stored.to(parameter.device, parameter.dtype)

    return hook


def _sliced(change: torch.Tensor, part: Part) -> torch.Tensor:
    """The part's own share of a change, zero elsewhere."""
    if part.rows is None and part.columns is None:
        return change
    mask = torch.zeros_like(change)
    rows = torch.arange(len(change)) if part.rows is None else torch.as_tensor(part.rows)
    if part.columns is None:
        mask[rows] = 1
    else:
        mask[rows[:, None], torch.as_tensor(part.columns)] = 1
    return change * mask
