"""A small random pair to be put on fake devices, and what it is asked."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair

WORDS = [f"w{n}" for n in range(40)]
CHAT = "{% for m in messages %}<u> {{ m['content'] }} </u>{% endfor %}{% if add_generation_prompt %} <a> {% endif %}"
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 48, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer():
    names = ["<pad>", "<s>", "</s>", "<unk>", "<u>", "</u>", "<a>", *WORDS]
    base = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="session")
def plain_pair(tokenizer):
    """A two-layer Llama and the same with every weight moved a little, on the CPU."""

    def model(drift: float):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES), attn_implementation="eager")
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.3)
            torch.manual_seed(2)
            for parameter in made.parameters():
                parameter.add_(drift * torch.randn_like(parameter))
        return LoadedModel(
            made.eval().requires_grad_(False), tokenizer, f"drift {drift}", f"{drift}", CHAT, torch.device("cpu"),
            "float32",
        )  # fmt: skip

    return make_pair(model(0.0), model(0.06))


@pytest.fixture(scope="session")
def suites():
    """Two suites of 16 items in 8 groups; choices of one and of three words."""
    generator = torch.Generator().manual_seed(3)

    def words(n: int) -> str:
        return " ".join(WORDS[int(i)] for i in torch.randint(0, 40, (n,), generator=generator))

    def one(name: str, kind: str) -> Suite:
        items = tuple(
            Item(f"{name}/{n}", f"g{n % 8}", words(3 + n % 5), choices=(" w1", f" w2 {words(2)}", " w4"), gold=n % 3)
            for n in range(16)
        )
        return Suite(name, items, kind=kind)

    return one("facts", "capability"), one("harm", "benefit")
