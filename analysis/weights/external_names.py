"""Units and plans under other tools' names: Hugging Face parameters, TransformerLens weights and hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.weights.export_tables import PLAN_NAMES
from taxlens.analysis.weights.units import difference_of

if TYPE_CHECKING:
    from taxlens.activations.models.anatomy import ModuleRole
    from taxlens.activations.models.pair import ModelPair

_WEIGHTS = {
    "q": ("attn.W_Q", "attn.b_Q", "attn.hook_q"),
    "k": ("attn.W_K", "attn.b_K", "attn.hook_k"),
    "v": ("attn.W_V", "attn.b_V", "attn.hook_v"),
    "o": ("attn.W_O", "attn.b_O", "hook_attn_out"),
    "qkv": ("attn.W_QKV", "attn.b_QKV", "attn.hook_q"),
    "gate": ("mlp.W_gate", "mlp.b_gate", "mlp.hook_pre"),
    "up": ("mlp.W_in", "mlp.b_in", "mlp.hook_pre_linear"),
    "gate_up": ("mlp.W_gate_up", "mlp.b_gate_up", "mlp.hook_pre"),
    "down": ("mlp.W_out", "mlp.b_out", "hook_mlp_out"),
    "router": ("mlp.W_gate", "", "mlp.hook_expert_weights"),
    "experts": ("mlp.experts", "", "hook_mlp_out"),
    "q_norm": ("attn.q_norm.w", "attn.q_norm.b", "attn.q_norm.hook_normalized"),
    "k_norm": ("attn.k_norm.w", "attn.k_norm.b", "attn.k_norm.hook_normalized"),
    "pre_attn": ("ln1.w", "ln1.b", "ln1.hook_normalized"),
    "post_attn": ("ln1_post.w", "ln1_post.b", "ln1_post.hook_normalized"),
    "pre_mlp": ("ln2.w", "ln2.b", "ln2.hook_normalized"),
    "post_mlp": ("ln2_post.w", "ln2_post.b", "ln2_post.hook_normalized"),
}
_OUTER = {
    "embed": ("embed.W_E", "", "hook_embed"),
    "pos_embed": ("pos_embed.W_pos", "", "hook_pos_embed"),
    "unembed": ("unembed.W_U", "unembed.b_U", ""),
    "final_norm": ("ln_final.w", "ln_final.b", "ln_final.hook_normalized"),
}


def export_units(
    pair: ModelPair, names: Sequence[str] | Mapping[str, float], *, level: str = "component"
) -> pd.DataFrame:
    """Return where units live, under the names of Hugging Face and of TransformerLens.

    A plan (unit to coefficient) is exported with its coefficients. Weights are named as TransformerLens's
    conventions have them; a fused module keeps its fused name there.

    Args:
        pair: the two checkpoints.
        names: units, or units with the share of their change to undo.
        level: level of the units.

    Returns:
        Columns unit, coefficient, parameter (Hugging Face), rows, columns, triple (blank: all of it),
        transformer_lens (weight), hook (where its output is read).

    Example:
        >>> export_units(pair, {"3.attn.h2": 1.0}, level="head")                         # doctest: +SKIP
    """
    difference = difference_of(pair)
    roles = {role.name: role for role in difference.anatomy.modules}
    gated = any(role.role in ("gate", "gate_up") for role in difference.anatomy.modules)
    units = difference.units(level)
    found = []
    for name in names:
        coefficient = float(names[name]) if isinstance(names, Mapping) else 1.0
        for part in (units[name] if name in units else difference.unit(name)).parts:
            weight, hook = lens_names(roles[part.module], part.parameter, gated=gated)
            where = (
                _span(part.rows),
                _span(part.columns),
                "rest" if part.rest else "" if part.triple is None else part.triple,
            )
            found.append((name, coefficient, f"{part.module}.{part.parameter}", *where, weight, hook))
    return PLAN_NAMES.frame(found)


def lens_names(role: ModuleRole, parameter: str, *, gated: bool = True) -> tuple[str, str]:
    """TransformerLens's name of a module's parameter, and of the hook on what the module puts out.

    Args:
        role: the module.
        parameter: "weight" or "bias".
        gated: whether the feed-forward part has a gate; without one its only pre-activation is `mlp.hook_pre`.
    """
    inner = (
        f"{role.kind}.{role.role}",
        f"{role.kind}.{role.role}.bias",
        "hook_attn_out" if role.kind == "attn" else "hook_mlp_out",
    )
    outer = (f"{role.role}.weight", f"{role.role}.bias", "")
    weight, bias, hook = _OUTER.get(role.role, outer) if role.layer is None else _WEIGHTS.get(role.role, inner)
    hook = "mlp.hook_pre" if role.role == "up" and not gated else hook
    named = weight if parameter == "weight" else bias
    if role.layer is None:
        return named, hook
    return f"blocks.{role.layer}.{named}", f"blocks.{role.layer}.{hook}"


def _span(index: object) -> str:
    if index is None:
        return ""
    numbers = [int(i) for i in index]  # type: ignore[attr-defined]
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}:{numbers[-1] + 1}" if whole else ",".join(map(str, numbers))
