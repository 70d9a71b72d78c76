"""Pairs of small models in float64, of every family, with a change in every weight."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair

WORDS = [f"w{n}" for n in range(40)]
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 47, **SPECIAL}
GROUPED = COMMON | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
LAYOUTS = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "mixtral": GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": GROUPED | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 64},
    "gemma3_text": GROUPED | {"head_dim": 8, "sliding_window": 64},
    "olmo2": GROUPED,
    "phi3": GROUPED,
    "gpt_neox": COMMON | {"intermediate_size": 48, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 47, "n_positions": 64, **SPECIAL},
}


@pytest.fixture(scope="session")
def tokenizer():
    names = ["<pad>", "<s>", "</s>", "<unk>", "<u>", "</u>", "<a>", *WORDS]
    base = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def layouts():
    return tuple(LAYOUTS)


@pytest.fixture(scope="session")
def build(tokenizer):
    """build(layout, ...) -> a pair; `change(name)` says which parameters differ and by how much (relative)."""

    def make(layout="llama", *, seed=0, dtype=torch.float64, size=0.25, change=lambda name: 1.0, **overrides):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = AutoConfig.for_model(layout, **(LAYOUTS[layout] | overrides))
            base = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().to(dtype)
            if layout in ("mixtral", "qwen3_moe"):
                base.set_experts_implementation("eager")
        with torch.no_grad():
            for p in base.parameters():
                p.copy_(torch.randn_like(p) * 0.3 if p.dim() > 1 else p + torch.randn_like(p) * 0.1)
        aligned = copy.deepcopy(base)
        with torch.no_grad():
            for name, p in aligned.named_parameters():
                p.add_(torch.randn_like(p) * size * change(name) * (0.3 if p.dim() > 1 else 0.1))
        ends = [
            LoadedModel(m.requires_grad_(False), tokenizer, n, n, None, torch.device("cpu"), str(dtype)[6:])
            for n, m in (("base", base), ("aligned", aligned))
        ]
        return make_pair(*ends)

    return make


@pytest.fixture(scope="session")
def words():
    """words(n, choices) -> a suite of n items in 4 groups; `single` choices are one word each."""

    def make(n=8, *, seed=0, single=False, name="words"):
        draw = np.random.default_rng(seed)
        items = []
        for i in range(n):
            texts = [
                " " + " ".join(WORDS[j] for j in draw.integers(0, 40, size=1 if single else draw.integers(1, 4)))
                for _ in range(2 + i % 3)
            ]
            texts = list(dict.fromkeys([*texts, " w1", " w2"]))
            prompt = " ".join(WORDS[j] for j in draw.integers(0, 40, size=draw.integers(2, 9)))
            items.append(Item(f"i{i}", f"g{i % 4}", prompt, choices=tuple(texts), gold=i % len(texts)))
        return Suite(name, tuple(items))

    return make
