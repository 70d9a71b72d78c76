"""Cause and carrier: a component's output differs by its own weights and by what it inherits, and the two add up.

f_aligned(x_aligned) - f_base(x_base) = [f_aligned(x_aligned) - f_base(x_aligned)]  its own weights: cause
                                      + [f_base(x_aligned) - f_base(x_base)]        from upstream: carrier

Activation patching moves both at once and so credits everything downstream of a cause. Localise on the cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from taxlens.activations.hooks.paired_forward import Seen, call_on, hidden, replaced_output, twin
from taxlens.analysis.interventions.effects import UnitEffects
from taxlens.analysis.interventions.graft import check_unchanged, rounding_of
from taxlens.analysis.scoring.evaluator import MeasureFunction, Values, losses
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

INTO = ("base", "aligned")
"""The model that is patched."""

PARTS = ("cause", "carrier", "both")
"""What is moved: a component's own weights' doing, what it inherits, or (activation patching) both."""

_CACHES = ("cache", "past_key_values", "past_key_value", "layer_past")
"""Arguments that hand an attention what it remembers; a second call must not remember the first."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A block's part (attention or feed-forward), and one head of it or all."""

    name: str
    layer: int
    kind: str
    head: int | None


def patch_effects(
    pair: ModelPair,
    measure: MeasureFunction,
    *,
    groups: Mapping[str, np.ndarray],
    units: Sequence[str] | None = None,
    into: str = "base",
    positions: Sequence[int] | None = None,
    template: str = "plain",
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[UnitEffects, UnitEffects]:
    """Effects of moving each component's cause, and its carrier, from one model into the other.

    Into the base, the part is added to the component's output and the effect is the loss that this makes. Into
    the aligned model, the part is taken away and the effect is the loss that this takes back; the cause is then
    the same as restoring the component's weights. Neither closes. Models run in pairs: two passes a component.

    Args:
        pair: the two checkpoints.
        measure: what scores a model.
        groups: suite name to the group of each item.
        units: "L.attn", "L.mlp" or "L.attn.hN"; by default every attention and feed-forward part.
        into: "base" or "aligned", the model that is patched.
        positions: token positions to patch; None: all.
        template: the template that `measure` scores in, for the tables.
        draws: group-bootstrap draws.
        seed: its seed.
        progress: told of each component.

    Returns:
        Effects of method `patch_cause` and of method `patch_carrier`.

    Raises:
        UsageError: a unit that is neither a block's part nor a head.

    References:
        Activation patching across models (cross-model activation patching); METHODS: cause and carrier.
    """
    one_of(into, INTO, what="patched model")
    anatomy = pair.base.anatomy
    names = tuple(units if units is not None else every_part(anatomy.n_layers))
    places = [_place(name, anatomy) for name in names]
    base, aligned = measure(pair.base.model), measure(pair.aligned.model)
    taxes = losses(aligned, base)
    end = base if into == "base" else aligned
    found: dict[str, list[dict[tuple[str, str], np.ndarray]]] = {"cause": [], "carrier": []}
    with progress.task("patch", total=len(places), unit="components") as task:
        for place in places:
            for part, columns in found.items():
                patched = patched_values(pair, measure, place, part=part, into=into, positions=positions)
                columns.append(losses(patched, end) if into == "base" else losses(end, patched))
            task.advance(1, note=place.name)
    check_unchanged(end, measure(pair.base.model if into == "base" else pair.aligned.model), limit=rounding_of(pair))
    shared: dict[str, Any] = {
        "level": "head" if all(place.head is not None for place in places) else "component",
        "template": template, "units": names, "layers": tuple(p.layer for p in places),
        "kinds": tuple(p.kind for p in places), "taxes": taxes, "groups": groups,
        "forwards": 2 * len(names) + 3, "draws": draws, "seed": seed,
    }  # fmt: skip
    values = {m: {key: np.column_stack([one[key] for one in found[m]]) for key in taxes} for m in found}
    return (
        UnitEffects(method="patch_cause", values=values["cause"], **shared),
        UnitEffects(method="patch_carrier", values=values["carrier"], **shared),
    )


def patched_values(
    pair: ModelPair,
    measure: MeasureFunction,
    unit: str | _Place,
    *,
    part: str = "both",
    into: str = "base",
    positions: Sequence[int] | None = None,
) -> Values:
    """Score the patched model: the part of the unit's output difference added to base or taken from aligned.

    Args:
        pair: the two checkpoints.
        measure: what scores a model.
        unit: "L.attn", "L.mlp" or "L.attn.hN".
        part: "cause", "carrier" or "both" (plain activation patching of the unit's output).
        into: "base" or "aligned".
        positions: token positions to patch; None: all.

    Returns:
        What `measure` returns.
    """
    one_of(part, PARTS, what="part")
    place = _place(unit, pair.base.anatomy) if isinstance(unit, str) else unit
    model, other = (pair.base, pair.aligned) if into == "base" else (pair.aligned, pair.base)
    mine, theirs = (_module(m.anatomy, place) for m in (model, other))
    sign = 1.0 if into == "base" else -1.0
    busy: list[bool] = []
    with twin(model.model, other.model, {"part": theirs}) as seen, ExitStack() as stack:
        own = stack.enter_context(_calls(mine, busy))

        def change(output: torch.Tensor) -> torch.Tensor:
            if busy:
                return output
            busy.append(True)
            try:
                calls = (own[-1], seen.calls["part"]) if into == "base" else (seen.calls["part"], own[-1])
                moved = _difference(pair, place, calls, part)
            finally:
                busy.pop()
            return output + sign * _at(moved.to(output.device), seen, positions)

        stack.enter_context(replaced_output(mine, change))
        return measure(model.model)


def every_part(n_layers: int) -> list[str]:
    """Names of all attention and feed-forward parts, in order."""
    return [f"{layer}.{kind}" for layer in range(n_layers) for kind in ("attn", "mlp")]


def _difference(pair: ModelPair, place: _Place, calls: tuple[Any, Any], part: str) -> torch.Tensor:
    """The part of the output difference, from the calls (base's, aligned's) that the two models made."""
    with torch.no_grad():
        if part == "carrier":
            return _output(pair.base, place, calls[1]) - _output(pair.base, place, calls[0])
        start = calls[1] if part == "cause" else calls[0]
        end = _output(pair.aligned, place, calls[1])
        return end - _output(pair.base, place, start).to(end.device)


def _output(loaded: Any, place: _Place, call: Any) -> torch.Tensor:
    """What one model's part gives on the other's (or its own) call: whole, or one head's share of it."""
    module = _module(loaded.anatomy, place)
    own = (call[0], {name: value for name, value in call[1].items() if name not in _CACHES})
    args, kwargs = call_on(own, next(module.parameters()).device)
    if place.head is None:
        return hidden(module(*args, **kwargs))
    role = loaded.anatomy.role("o", place.layer)
    projection = loaded.model.get_submodule(role.name)
    width = loaded.anatomy.d_head
    columns = slice(place.head * width, (place.head + 1) * width)
    kept: list[torch.Tensor] = []
    handle = projection.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
    try:
        module(*args, **kwargs)
    finally:
        handle.remove()
    weight = projection.weight.T if isinstance(projection, Conv1D) else projection.weight
    return kept[-1][..., columns] @ weight[:, columns].T


def _at(moved: torch.Tensor, seen: Seen, positions: Sequence[int] | None) -> torch.Tensor:
    if positions is None:
        return moved
    wanted = torch.tensor(list(positions), device=moved.device)
    return moved * torch.isin(seen.positions.to(moved.device), wanted)[..., None]


@contextmanager
def _calls(module: Any, busy: list[bool]) -> Iterator[list[Any]]:
    """Keep the arguments of the module's last call by the model itself."""
    own: list[Any] = []

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not busy:
            own[:] = [(args, kwargs)]

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield own
    finally:
        handle.remove()


def _module(anatomy: Any, place: _Place) -> Any:
    return (anatomy.attentions if place.kind == "attn" else anatomy.mlps)[place.layer]


def _place(name: str, anatomy: Any) -> _Place:
    found = re.fullmatch(r"(\d+)\.(attn|mlp)(?:\.h(\d+))?", name)
    if found and int(found[1]) < anatomy.n_layers and not (found[3] and found[2] == "mlp"):
        head = int(found[3]) if found[3] else None
        if head is None or head < anatomy.n_heads:
            return _Place(name, int(found[1]), found[2], head)
    rows = [("got", name), ("layers", anatomy.n_layers), ("heads", anatomy.n_heads)]
    raise UsageError(explain("only a block's parts and heads can be patched.", rows, "3.attn, 3.mlp or 3.attn.h2"))
