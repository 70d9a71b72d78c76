"""Small random models of several layouts and a word-level tokenizer, made once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items import Item, Suite

WORDS = [f"w{n}" for n in range(40)]
CHAT = "{% for m in messages %}<u> {{ m['content'] }} </u>{% endfor %}{% if add_generation_prompt %} <a> {% endif %}"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 48}
LAYOUTS = {
    "llama": SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "qwen2": SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "gemma2": SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 64},
    "gpt_neox": SIZES | {"intermediate_size": 48, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 48, "n_positions": 64},
}


@pytest.fixture(scope="session")
def word_tokenizer():
    names = ["<pad>", "<s>", "</s>", "<unk>", "<u>", "</u>", "<a>", *WORDS]
    base = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.fixture(scope="session")
def make_model():
    """make_model(layout, seed) -> a small random causal language model, sharp enough to have opinions."""

    def make(layout: str = "llama", seed: int = 0):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(layout, **LAYOUTS[layout])
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.4)
        return model.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def word_suite():
    """40 items in 10 groups, two to four choices of one to three words."""
    generator = torch.Generator().manual_seed(5)

    def words(most: int) -> str:
        count = int(torch.randint(1, most + 1, (1,), generator=generator))
        return " ".join(WORDS[i] for i in torch.randint(0, 40, (count,), generator=generator))

    items = []
    for n in range(40):
        choices = list(dict.fromkeys(f" {words(3)}" for _ in range(2 + n % 3)))
        choices = choices if len(choices) > 1 else [*choices, " w0 w0 w0 w0"]
        items.append(
            Item(id=f"i{n}", group=f"g{n % 10}", prompt=words(9), choices=tuple(choices), gold=n % len(choices))
        )
    return Suite("words", tuple(items))


@pytest.fixture(scope="session")
def fake_pair(make_model, word_tokenizer):
    """Two random models in the shape of a loaded pair."""

    def loaded(seed: int):
        return SimpleNamespace(model=make_model("llama", seed), tokenizer=word_tokenizer, chat_template=CHAT)

    return SimpleNamespace(base=loaded(0), aligned=loaded(1))
