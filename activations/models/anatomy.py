"""Which module of a Hugging Face model is what: the one home of module names, for every family served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from taxlens.core.errors import ModelLoadError, explain


@dataclass(frozen=True, slots=True)
class ModuleRole:
    """One module that holds weights, and what it does.

    Args:
        name: dotted path in the Hugging Face model ("model.layers.3.self_attn.q_proj").
        layer: block index from 0; None outside the blocks.
        kind: "attn", "mlp", "norm", "embed" or "unembed": the component that the module belongs to.
        role: "q", "k", "v", "o", "qkv", "gate", "up", "gate_up", "down", "q_norm", "k_norm", "pre_attn",
            "post_attn", "pre_mlp", "post_mlp", "router", "experts", "final_norm", "embed", "pos_embed" or "unembed".
    """

    name: str
    layer: int | None
    kind: str
    role: str


@dataclass(frozen=True, slots=True)
class Family:
    """Module names of one architecture, relative to its backbone and its blocks."""

    backbone: str
    blocks: str
    attention: str
    mlp: str
    block_roles: dict[str, tuple[str, str]]
    outer: dict[str, str]
    qkv: str = "separate"


_LLAMA_ATTN = {f"self_attn.{r}_proj": ("attn", r) for r in "qkvo"}
_LLAMA_MLP = {f"mlp.{r}_proj": ("mlp", r) for r in ("gate", "up", "down")}
_EXPERTS = {"mlp.gate": ("mlp", "router"), "mlp.experts": ("mlp", "experts")}
_PRE_NORMS = {"input_layernorm": ("norm", "pre_attn"), "post_attention_layernorm": ("norm", "pre_mlp")}
_QK_NORMS = {"self_attn.q_norm": ("attn", "q_norm"), "self_attn.k_norm": ("attn", "k_norm")}
_POST_NORMS = {
    "post_attention_layernorm": ("norm", "post_attn"),
    "post_feedforward_layernorm": ("norm", "post_mlp"),
}
_FOUR_NORMS = {
    "input_layernorm": ("norm", "pre_attn"),
    "pre_feedforward_layernorm": ("norm", "pre_mlp"),
    **_POST_NORMS,
}
_OUTER = {"embed_tokens": "embed", "norm": "final_norm"}


def _llama_like(roles: dict[str, tuple[str, str]], *, qkv: str = "separate") -> Family:
    return Family("model", "layers", "self_attn", "mlp", roles, _OUTER, qkv)


_FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2"), _llama_like(_LLAMA_ATTN | _LLAMA_MLP | _PRE_NORMS)),
    "qwen3": _llama_like(_LLAMA_ATTN | _QK_NORMS | _LLAMA_MLP | _PRE_NORMS),
    "mixtral": _llama_like(_LLAMA_ATTN | _EXPERTS | _PRE_NORMS),
    "qwen3_moe": _llama_like(_LLAMA_ATTN | _QK_NORMS | _EXPERTS | _PRE_NORMS),
    "gemma2": _llama_like(_LLAMA_ATTN | _LLAMA_MLP | _FOUR_NORMS),
    "gemma3_text": _llama_like(_LLAMA_ATTN | _QK_NORMS | _LLAMA_MLP | _FOUR_NORMS),
    "olmo2": _llama_like(_LLAMA_ATTN | _QK_NORMS | _LLAMA_MLP | _POST_NORMS),
    "phi3": _llama_like(
        {
            "self_attn.qkv_proj": ("attn", "qkv"),
            "self_attn.o_proj": ("attn", "o"),
            "mlp.gate_up_proj": ("mlp", "gate_up"),
            "mlp.down_proj": ("mlp", "down"),
            **_PRE_NORMS,
        },
        qkv="concatenated",
    ),
    "gpt2": Family(
        "transformer",
        "h",
        "attn",
        "mlp",
        {
            "attn.c_attn": ("attn", "qkv"),
            "attn.c_proj": ("attn", "o"),
            "mlp.c_fc": ("mlp", "up"),
            "mlp.c_proj": ("mlp", "down"),
            "ln_1": ("norm", "pre_attn"),
            "ln_2": ("norm", "pre_mlp"),
        },
        {"wte": "embed", "wpe": "pos_embed", "ln_f": "final_norm"},
        "concatenated",
    ),
    "gpt_neox": Family(
        "gpt_neox",
        "layers",
        "attention",
        "mlp",
        {
            "attention.query_key_value": ("attn", "qkv"),
            "attention.dense": ("attn", "o"),
            "mlp.dense_h_to_4h": ("mlp", "up"),
            "mlp.dense_4h_to_h": ("mlp", "down"),
            **_PRE_NORMS,
        },
        {"embed_in": "embed", "final_layer_norm": "final_norm"},
        "by_head",
    ),
}
ARCHITECTURES = tuple(_FAMILIES)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of one loaded causal language model.

    Args:
        model_type: the family, as in the checkpoint's config.
        backbone: the model without its output head.
        blocks: the transformer blocks, first to last.
        attentions, mlps: each block's attention and feed-forward module.
        n_layers, n_heads, n_kv_heads, d_head, d_model, d_mlp: sizes.
        parallel: attention and feed-forward part read the same stream (then there is no resid_mid).
        tied: input embedding and output head are one tensor.
        qkv: "separate", "concatenated" (rows: all queries, all keys, all values) or "by_head" (rows: for each
            head its query, key, value), how a "qkv" module's outputs are laid out.
        modules: every module that holds weights, in the order of computation within a block.
    """

    model_type: str
    backbone: nn.Module
    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    mlps: tuple[nn.Module, ...]
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

    def role(self, role: str, layer: int | None = None) -> ModuleRole | None:
        """Return the module with this role in this layer, or None where the family has none."""
        for module in self.modules:
            if module.role == role and module.layer == layer:
                return module
        return None


def anatomy(model: nn.Module) -> Anatomy:
    """Return the parts of a Hugging Face causal language model, by name, and check that nothing is unnamed.

    Args:
        model: a loaded `...ForCausalLM`.

    Raises:
        ModelLoadError: if the family is not served, or the model holds weights that no role names.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        ...                      num_attention_heads=2, num_key_value_heads=1)
        >>> anatomy(LlamaForCausalLM(config)).n_kv_heads
        1
    """
    config: Any = model.config
    family = _FAMILIES.get(config.model_type)
    if family is None:
        rows = [("got", config.model_type), ("served", ", ".join(ARCHITECTURES))]
        fix = "use a text-only causal language model of a served family."
        raise ModelLoadError(explain("this architecture is not served.", rows, fix))
    backbone = model.get_submodule(family.backbone)
    blocks = tuple(backbone.get_submodule(family.blocks).children())
    modules = _modules(family, len(blocks))
    _check_named(model, modules)
    n_heads = int(config.num_attention_heads)
    return Anatomy(
        model_type=config.model_type,
        backbone=backbone,
        blocks=blocks,
        attentions=tuple(block.get_submodule(family.attention) for block in blocks),
        mlps=tuple(block.get_submodule(family.mlp) for block in blocks),
        n_layers=len(blocks),
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        d_head=int(getattr(config, "head_dim", None) or config.hidden_size // n_heads),
        d_model=int(config.hidden_size),
        d_mlp=_d_mlp(config),
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        tied=is_tied(model),
        qkv=family.qkv,
        modules=modules,
    )


def is_tied(model: nn.Module) -> bool:
    """Return whether the input embedding and the output head of a Hugging Face model are one tensor."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    return head is not None and head.weight is embed.weight


def _d_mlp(config: Any) -> int:
    size = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return int(size or 4 * config.hidden_size)


def _modules(family: Family, n_layers: int) -> tuple[ModuleRole, ...]:
    outer = [
        ModuleRole(f"{family.backbone}.{name}", None, "norm" if role == "final_norm" else "embed", role)
        for name, role in family.outer.items()
    ]
    first = [module for module in outer if module.kind == "embed"]
    last = [module for module in outer if module.kind == "norm"]
    inner = [
        ModuleRole(f"{family.backbone}.{family.blocks}.{layer}.{name}", layer, kind, role)
        for layer in range(n_layers)
        for name, (kind, role) in family.block_roles.items()
    ]
    return (*first, *inner, *last, ModuleRole("lm_head", None, "unembed", "unembed"))


def _check_named(model: nn.Module, modules: tuple[ModuleRole, ...]) -> None:
    named = {module.name for module in modules}
    present = {name.rpartition(".")[0] for name, _ in model.named_parameters(remove_duplicate=False)}
    unknown, missing = sorted(present - named), sorted(named - present)
    if unknown or missing:
        rows = [("not named", ", ".join(unknown[:5]) or "-"), ("not found", ", ".join(missing[:5]) or "-")]
        fix = "use an unmodified checkpoint of a served family; merge adapters first."
        raise ModelLoadError(explain("the model's modules are not those of its family.", rows, fix))
