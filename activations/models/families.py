"""Names that architectures give to their parts: one table of roles, and one line a family for what names do not say."""

from __future__ import annotations

from dataclasses import dataclass

ATTENTION = (
    "self_attn",
    "attn",
    "attention",
    "self_attention",
    "linear_attn",
    "mixer",
    "conv",
    "temporal_block",
    "mamba",
)
"""What the part of a block is called that mixes positions."""

MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "moe", "mlp_block")
"""What the part is called that works on each position alone."""

LOOSE_MLP = ("fc1", "fc2", "activation_fn")
"""A feed-forward part without a module of its own (OPT): its layers stand in the block."""

ATTENTION_ROLES = {
    **{f"{r}_proj": r for r in "qkvo"}, "out_proj": "o", "dense": "o", "c_proj": "o",
    "qkv_proj": "qkv", "c_attn": "qkv", "query_key_value": "qkv", "Wqkv": "qkv",
    **dict.fromkeys(("q_norm", "q_layernorm", "query_layernorm"), "q_norm"),
    **dict.fromkeys(("k_norm", "k_layernorm", "key_layernorm"), "k_norm"),
}  # fmt: skip
"""Name inside the attention part -> role. Others keep their own name as their role."""

MIXERS = ("linear_attn", "mixer", "conv", "temporal_block", "mamba")
"""Parts that mix positions without attention: they have no heads of the model's, and their names no attention role."""

MLP_ROLES = {
    "gate_proj": "gate", "w1": "gate", "up_proj": "up", "c_fc": "up", "fc1": "up", "fc_in": "up",
    "dense_h_to_4h": "up", "w3": "up", "gate_up_proj": "gate_up",
    "down_proj": "down", "c_proj": "down", "fc2": "down", "fc_out": "down", "dense_4h_to_h": "down", "w2": "down",
    "gate": "router", "router": "router", "experts": "experts", "shared_expert_gate": "shared_expert_gate",
}  # fmt: skip
"""Name inside the feed-forward part -> role; layers of a shared expert are "shared_gate", "shared_up", "shared_down"."""

_FIRST = (
    "input_layernorm", "ln_1", "self_attn_layer_norm", "ln_attn", "operator_norm", "attention_layernorm", "norm"
)  # fmt: skip
_SECOND = (
    "ln_2", "final_layer_norm", "ln_mlp", "ffn_norm", "feedforward_layernorm", "pre_feedforward_layernorm",
    "pre_mlp_layernorm",
)  # fmt: skip
_AFTER = {
    "post_self_attn_layernorm": "post_attn", "post_feedforward_layernorm": "post_mlp", "post_mlp_layernorm": "post_mlp",
}  # fmt: skip


def norm_roles(names: set[str]) -> dict[str, str]:
    """Return which norm of a block is which, by the set of their names.

    "post_attention_layernorm" stands before the feed-forward part in most families, and after attention in those that
    have another norm there (Gemma 2) or norm the outputs alone (OLMo 2).
    """
    known = dict.fromkeys(_FIRST, "pre_attn") | dict.fromkeys(_SECOND, "pre_mlp") | _AFTER
    found = {name: known[name] for name in names & known.keys()}
    if "post_attention_layernorm" in names:
        outputs = {"pre_feedforward_layernorm", "post_feedforward_layernorm"} & names
        found["post_attention_layernorm"] = "post_attn" if outputs else "pre_mlp"
    return found


@dataclass(frozen=True, slots=True)
class Family:
    """What the names of a family's modules do not say.

    Args:
        qkv: how a fused query-key-value module lays out its outputs: "concatenated", "by_head", "by_group" or
            "config" (Falcon: its config decides).
        parallel: attention and feed-forward part read the same stream: True, or the config key that says so.
        residual_inside: the two parts add the stream themselves, so that what they add is read at their last layer.
        doubled_queries: the query module gives a gate beside every query.
    """

    qkv: str = "concatenated"
    parallel: bool | str = False
    residual_inside: bool = False
    doubled_queries: bool = False


_PLAIN, _GATED = Family(), Family(doubled_queries=True)
_PARALLEL = Family(parallel=True)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "ministral3", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2",
         "gemma3_text", "olmo", "olmo2", "olmo3", "olmoe", "smollm3", "phi3", "granite", "granitemoe", "glm4",
         "glm4_moe", "starcoder2", "llama4_text", "gpt_oss", "gpt2", "opt", "lfm2", "mamba", "exaone4", "seed_oss", "arcee",
         "apertus", "nemotron", "hunyuan_v1_dense", "ernie4_5", "helium", "deepseek_v3", "phimoe"), _PLAIN,
    ),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _GATED),
    **dict.fromkeys(("phi", "gptj", "cohere", "cohere2"), _PARALLEL),
    "stablelm": Family(parallel="use_parallel_residual"),
    "gpt_neox": Family(qkv="by_head", parallel="use_parallel_residual"),
    "bloom": Family(qkv="by_head", residual_inside=True),
    "falcon": Family(qkv="config", parallel="parallel_attn"),
}  # fmt: skip
"""The families that tests compare with plain transformers, every stage. Others are read by structure, if that passes."""
