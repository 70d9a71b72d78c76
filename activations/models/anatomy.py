"""Which module of a Hugging Face model is what: read from the module tree by the names of `families`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers.pytorch_utils import Conv1D

from taxlens.activations.models.families import (
    ATTENTION,
    ATTENTION_ROLES,
    FAMILIES,
    LOOSE_MLP,
    MIXERS,
    MLP,
    MLP_ROLES,
    Family,
    norm_roles,
)
from taxlens.core.errors import ModelLoadError, explain

ARCHITECTURES = tuple(FAMILIES)
_KINDS = ("attn", "mlp", "norm")


@dataclass(frozen=True, slots=True)
class ModuleRole:
    """One module that holds weights, and what it does.

    Args:
        name: dotted path in the Hugging Face model ("model.layers.3.self_attn.q_proj").
        layer: block index from 0; None outside the blocks.
        kind: "attn", "mlp", "norm", "embed" or "unembed": the component that the module belongs to.
        role: "q", "k", "v", "o", "qkv", "gate", "up", "gate_up", "down", "q_norm", "k_norm", "pre_attn",
            "post_attn", "pre_mlp", "post_mlp", "router", "experts", "final_norm", "embed", "pos_embed" or "unembed";
            a module that none of these fits has its own name.
    """

    name: str
    layer: int | None
    kind: str
    role: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of one loaded causal language model.

    Args:
        model_type: the family, as in the checkpoint's config.
        backbone: the model without its output head.
        blocks: the transformer blocks, first to last.
        attentions, mlps: each block's part that mixes positions, and its feed-forward part (None: it has none).
        n_layers, n_heads, n_kv_heads, d_head, d_model, d_mlp: sizes.
        parallel: attention and feed-forward part read the same stream (then there is no resid_mid).
        tied: input embedding and output head are one tensor.
        qkv: "separate", "concatenated" (rows: all queries, all keys, all values), "by_head" (rows: for each head its
            query, key, value) or "by_group" (rows: a group's queries, its key, its value), how a "qkv" module's
            outputs are laid out.
        modules: every module that holds weights, by block: attention, feed-forward part, norms.
        bare: norms without weights, which have a place all the same.
        residual_inside: the two parts add the stream themselves.
        residual_scale: what the two parts' outputs are multiplied by before they are added (Granite).
        served: whether the family stands in the table, or was read by structure.
    """

    model_type: str
    backbone: nn.Module
    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    mlps: tuple[nn.Module | None, ...]
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    parallel: bool
    tied: bool
    qkv: str
    modules: tuple[ModuleRole, ...]
    bare: tuple[ModuleRole, ...] = ()
    residual_inside: bool = False
    residual_scale: float = 1.0
    served: bool = True

    def role(self, role: str, layer: int | None = None) -> ModuleRole | None:
        """Return the module with this role in this layer, or None where the family has none."""
        for module in (*self.modules, *self.bare):
            if module.role == role and module.layer == layer:
                return module
        return None


def anatomy(model: nn.Module) -> Anatomy:
    """Return the parts of a Hugging Face causal language model, and check that nothing is unnamed.

    Args:
        model: a loaded `...ForCausalLM`.

    Raises:
        ModelLoadError: if no decoder blocks are found, or the model holds weights that no part has.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        ...                      num_attention_heads=2, num_key_value_heads=1)
        >>> anatomy(LlamaForCausalLM(config)).n_kv_heads
        1
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type, Family())
    place, blocks = _blocks(model)
    parts = [_parts(block) for block in blocks]
    named = dict(model.named_modules())
    roles = [role for number, block in enumerate(blocks) for role in _in_block(f"{place}.{number}", number, block)]
    outer = _outside(model, place)
    modules = [role for role in (*outer[0], *roles, *outer[1]) if _own(named[role.name])]
    bare = [role for role in roles if not _own(named[role.name]) and role.kind == "norm"]
    if not any(role.role == "final_norm" for role in modules):
        bare += _last_norm_without_weights(model, place)
    _check_named(model, modules)
    sizes = _sizes(config, named, modules, family)
    return Anatomy(
        model_type=config.model_type,
        backbone=model.get_submodule(place.rpartition(".")[0]),
        blocks=tuple(blocks),
        attentions=tuple(attention for attention, _ in parts),
        mlps=tuple(mlp for _, mlp in parts),
        n_layers=len(blocks),
        parallel=_parallel(config, family),
        tied=is_tied(model),
        modules=tuple(modules),
        bare=tuple(bare),
        residual_inside=family.residual_inside,
        residual_scale=float(getattr(config, "residual_multiplier", None) or 1.0),
        served=config.model_type in FAMILIES,
        **sizes,
    )


def is_tied(model: nn.Module) -> bool:
    """Return whether the input embedding and the output head of a Hugging Face model are one tensor."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    return head is not None and head.weight is embed.weight


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of a causal language model that runs embedding, blocks and last norm: the head reads what it gives."""
    place = _PLACES.get(model)
    if place is None:
        place = _PLACES[model] = _blocks(model)[0].rpartition(".")[0]
    return model.get_submodule(place)


_PLACES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def _blocks(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """The list of decoder blocks: the longest list of modules that is not inside another."""
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{other}.") for other, _ in found)
        if isinstance(module, nn.ModuleList) and not inside and any(_parts(block)[0] for block in module):
            found.append((name, module))
    if not found:
        rows = [("got", model.config.model_type), ("class", type(model).__name__), ("served", ", ".join(ARCHITECTURES))]
        fix = "use a decoder-only language model of a served family."
        raise ModelLoadError(explain("no decoder blocks are found in this model.", rows, fix))
    name, blocks = max(found, key=lambda pair: len(pair[1]))
    return name, list(blocks)


def _parts(block: nn.Module) -> tuple[Any, Any]:
    """The part of a block that mixes positions and its feed-forward part; None for what it has not."""
    children = dict(block.named_children())
    attention = next((children[name] for name in ATTENTION if name in children), None)
    mlp = next((children[name] for name in MLP if name in children), children.get("fc2"))
    return attention, mlp


def _in_block(place: str, layer: int, block: nn.Module) -> list[ModuleRole]:
    """Every module of a block that holds weights (and its norms), by attention, feed-forward part, norms."""
    norms = norm_roles({name for name, module in block.named_children() if name not in (*ATTENTION, *MLP, *LOOSE_MLP)})
    found = []
    for name, module in block.named_modules():
        first, _, rest = name.partition(".")
        if first in ATTENTION and first not in norms:
            if _own(module):
                found.append(ModuleRole(f"{place}.{name}", layer, "attn", _attention_role(first, rest)))
        elif first in (*MLP, *LOOSE_MLP):
            if _own(module):
                found.append(ModuleRole(f"{place}.{name}", layer, "mlp", _mlp_role(rest or first)))
        elif name in norms:
            found.append(ModuleRole(f"{place}.{name}", layer, "norm", norms[name]))
        elif "norm" in name and _own(module):
            found.append(ModuleRole(f"{place}.{name}", layer, "norm", name))
    return sorted(found, key=lambda role: _KINDS.index(role.kind))


def _attention_role(part: str, rest: str) -> str:
    if part in MIXERS:
        return f"mixer_{rest}" if rest else "mixer"
    return ATTENTION_ROLES.get(rest, rest or "attention")


def _mlp_role(rest: str) -> str:
    if rest.startswith(("shared_expert.", "shared_experts.", "shared_mlp.")):
        inner = MLP_ROLES.get(rest.partition(".")[2], rest.partition(".")[2])
        return f"shared_{inner}"
    return MLP_ROLES.get(rest, rest)


def _outside(model: nn.Module, place: str) -> tuple[list[ModuleRole], list[ModuleRole]]:
    """Modules outside the blocks that hold weights: those before them, and those after."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    first, last = [], []
    for name, module in model.named_modules():
        if name.startswith(f"{place}.") or not _own(module):
            continue
        short = name.rpartition(".")[2]
        if module is head:
            last.append(ModuleRole(name, None, "unembed", "unembed"))
        elif module is embed:
            first.append(ModuleRole(name, None, "embed", "embed"))
        elif isinstance(module, nn.Embedding):
            first.append(ModuleRole(name, None, "embed", "pos_embed"))
        elif short in ("word_embeddings_layernorm", "project_in"):
            first.append(ModuleRole(name, None, "embed", short))
        elif short == "project_out":
            last.append(ModuleRole(name, None, "unembed", short))
        elif "norm" in short or short == "ln_f":
            last.append(ModuleRole(name, None, "norm", "final_norm"))
    order = ("norm", "unembed")
    return first, sorted(last, key=lambda role: order.index(role.kind))


def _last_norm_without_weights(model: nn.Module, place: str) -> list[ModuleRole]:
    """The norm before the output head, where it has no weights (OLMo)."""
    around = model.get_submodule(place.rpartition(".")[0])
    names = [name for name, _ in around.named_children() if "norm" in name or name == "ln_f"]
    return [ModuleRole(f"{place.rpartition('.')[0]}.{names[-1]}", None, "norm", "final_norm")] if names else []


def _own(module: nn.Module) -> bool:
    """Whether a module holds parameters itself."""
    return next(module.parameters(recurse=False), None) is not None


def _check_named(model: nn.Module, modules: list[ModuleRole]) -> None:
    named = {module.name for module in modules}
    present = {name.rpartition(".")[0] for name, _ in model.named_parameters(remove_duplicate=False)}
    unknown = sorted(present - named)
    if any(".lora_" in f".{name}." or ".base_layer" in name for name in (*unknown, *named)):
        rows = [("class", type(model).__name__), ("found", next(n for n in (*named, *unknown) if "base_layer" in n))]
        fix = "merge it (merge_and_unload), or give the base and the adapter apart."
        raise ModelLoadError(explain("an adapter is still in this model.", rows, fix))
    if unknown:
        rows = [
            ("got", model.config.model_type),
            ("not named", ", ".join(unknown[:5])),
            ("served", ", ".join(ARCHITECTURES)),
        ]
        fix = "use an unmodified checkpoint of a served family."
        raise ModelLoadError(explain("the model holds weights that no known part has.", rows, fix))


def _parallel(config: Any, family: Family) -> bool:
    if isinstance(family.parallel, str):
        return bool(getattr(config, family.parallel, False) or getattr(config, "new_decoder_architecture", False))
    return family.parallel


def _sizes(config: Any, named: dict[str, nn.Module], modules: list[ModuleRole], family: Family) -> dict[str, Any]:
    """Heads and widths, from the weights' own shapes where they say it."""
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    outs = {role.role: _shape(named[role.name]) for role in reversed(modules)}
    d_head = (
        outs["o"][1] // heads if "o" in outs else int(getattr(config, "head_dim", 0) or config.hidden_size // heads)
    )
    groups, layout = heads, "separate"
    if "k" in outs:
        groups = max(1, outs["k"][0] // d_head)
    elif "qkv" in outs:
        layout = _layout(config, family)
        extra = outs["qkv"][0] // d_head - heads
        groups = max(1, extra // 2)
    width = outs["down"][1] if "down" in outs else outs.get("mixer_out_proj", (0, 0))[1]
    size = width or int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    return {
        "n_heads": heads, "n_kv_heads": groups, "d_head": d_head, "d_model": int(config.hidden_size), "d_mlp": int(size),
        "qkv": layout,
    }  # fmt: skip


def _layout(config: Any, family: Family) -> str:
    if family.qkv != "config":
        return family.qkv
    if config.new_decoder_architecture:
        return "by_group"
    return "concatenated" if config.multi_query else "by_head"


def _shape(module: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a matrix, whichever way it is stored; (0, 0) for others."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        return 0, 0
    rows, columns = weight.shape
    return (int(columns), int(rows)) if isinstance(module, Conv1D) else (int(rows), int(columns))
