"""Small random checkpoints of every served family, with a word-level tokenizer, saved as ordinary directories."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.pair import load_pair

WORDS = [f"w{n}" for n in range(50)]
CHAT = "{% for m in messages %}<u> {{ m['content'] }} </u>{% endfor %}{% if add_generation_prompt %} <a> {% endif %}"
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
IDS = {"bos_token_id": 1, "eos_token_id": 2}
BASIC = SIZES | IDS | {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = BASIC | {"num_key_value_heads": 2, "pad_token_id": 0}
LAYOUTS = {
    "llama": GROUPED,
    "mistral": GROUPED | {"head_dim": 8},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3_text": GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "phi3": GROUPED,
    "olmo2": GROUPED,
    "gpt_neox": BASIC,
    "gpt2": IDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64},
}


@pytest.fixture(scope="session")
def make_tokenizer():
    """make_tokenizer(words, chat=...) -> a fast word-level tokenizer."""

    def make(words=WORDS, chat: str | None = CHAT) -> PreTrainedTokenizerFast:
        names = ["<pad>", "<s>", "</s>", "<unk>", "<u>", "</u>", "<a>", *words]
        base = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
        base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        tokenizer.chat_template = chat
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_model():
    """make_model(layout, seed=..., **config) -> a small random causal language model."""

    def make(layout: str = "llama", *, seed: int = 0, drift: float = 0.0, **config):
        torch.manual_seed(seed)
        made = transformers.AutoConfig.for_model(layout, **(LAYOUTS[layout] | config))
        model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.3)
                if drift:
                    parameter.add_(drift * torch.randn_like(parameter))
        return model.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory, make_model, make_tokenizer):
    """make_checkpoint(layout, seed=..., chat=..., **config) -> a directory, made once for the same arguments."""
    made = {}

    def make(
        layout: str = "llama", *, seed: int = 0, drift: float = 0.0, chat: str | None = CHAT, words=None, **config
    ):
        key = repr((layout, seed, drift, chat, words, sorted(config.items())))
        if key not in made:
            directory = tmp_path_factory.mktemp(layout)
            make_model(layout, seed=seed, drift=drift, **config).save_pretrained(directory)
            make_tokenizer(words or WORDS, chat).save_pretrained(directory)
            made[key] = directory
        return made[key]

    return make


@pytest.fixture(scope="session")
def make_pair(make_checkpoint):
    """make_pair(layout, **options) -> a loaded pair: aligned is base with every weight a little moved."""
    made = {}

    def make(layout: str = "llama", **options):
        key = (layout, repr(sorted(options.items())))
        if key not in made:
            base, aligned = make_checkpoint(layout), make_checkpoint(layout, drift=0.05)
            made[key] = load_pair(base, aligned, device="cpu", **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def suite():
    """12 items in 4 groups with prompts of 3 to 14 words, choices and labels."""
    generator = torch.Generator().manual_seed(3)

    def words(n: int) -> str:
        return " ".join(WORDS[int(i)] for i in torch.randint(0, 50, (n,), generator=generator))

    return Suite(
        name="facts",
        items=tuple(
            Item(
                id=f"f{n}",
                group=f"g{n % 4}",
                prompt=words(3 + n),
                choices=(" w1", " w2 w3", " w4"),
                gold=n % 3,
                labels={"parity": n % 2, "relation": f"r{n % 3}"},
            )
            for n in range(12)
        ),
    )


@pytest.fixture(scope="session")
def texts():
    """6 text items."""
    return Suite(
        name="texts",
        items=tuple(
            Item(id=f"t{n}", group=f"d{n // 2}", text=" ".join(WORDS[n : n + 8 + n]), labels={"truth": n % 2})
            for n in range(6)
        ),
    )


@pytest.fixture(scope="session")
def adapter(make_model, tmp_path_factory):
    """A LoRA adapter of rank 2 on every linear layer of the small Llama, with weights that do something."""
    from peft import LoraConfig, get_peft_model

    model = make_model()
    config = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers for a name that it has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        tuned = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    ids = torch.arange(7, 19)[None]
    return folder, ids, tuned(input_ids=ids).logits.detach()
