"""Weights that a module uses without calling the module that holds them: differentiated with the module around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from taxlens.analysis.path.module_rules import GeneralRule, Layout
from taxlens.analysis.weights.units import Difference, component_name

if TYPE_CHECKING:
    from taxlens.activations.models.anatomy import ModuleRole


def carried(model: Any, roles: Sequence[ModuleRole]) -> dict[str, str]:
    """Modules whose weights their parent uses itself, without calling them (a state-space layer's convolution).

    Returns:
        Module name to the name of the module around it that is called; modules that hold such weights beside others
        of their own stand under themselves.
    """
    mixing = [role for role in roles if role.role.startswith("mixer")]
    if not mixing:
        return {}
    called: set[str] = set()
    names = {role.name for role in mixing}
    names |= {name.rpartition(".")[0] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name)) for name in names
    ]
    device = model.get_input_embeddings().weight.device
    ids = torch.zeros((1, 4), dtype=torch.int64, device=device)
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found = {role.name: role.name.rpartition(".")[0] for role in mixing if role.name not in called}
    return found | {name: name for name in set(found.values()) & {role.name for role in mixing}}


def carrier_rule(
    place: str, roles: Sequence[ModuleRole], model: Any, difference: Difference, layout: Layout
) -> GeneralRule:
    """The rule of a module for weights of its own and of modules inside it that it does not call."""
    change: dict[str, torch.Tensor] = {}
    device = next(model.get_submodule(place).parameters()).device
    for role in roles:
        inner = role.name.removeprefix(place).lstrip(".")
        for parameter in difference.parameters(role.name):
            change[f"{inner}.{parameter}".lstrip(".")] = difference.change(role.name, parameter).to(device)
    first = roles[0]
    component = layout.names["component"].index(component_name(first))
    owner = difference.parameters(first.name)[0]
    targets = [(level, layout.owners(level, first.name, owner)[0][0]) for level in layout.levels]
    return GeneralRule(place, component, False, change, targets)
