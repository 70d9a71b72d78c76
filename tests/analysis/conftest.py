"""Small random models of several layouts and a word-level tokenizer, made once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite

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


def _choices(words: list[str], gold: int) -> dict[str, object]:
    return {"choices": tuple(f" {word}" for word in words), "gold": gold}


@pytest.fixture(scope="session")
def refusal_suites():
    """facts, sums (capabilities), harmless and harm: the last word of the vocabulary stands for refusing."""
    refuse = "w39"
    facts = [
        Item(f"facts/{i}", f"f{i // 2}", f"w{i % 20} w{20 + i // 4}", **_choices([f"w{i // 2}", "w33", refuse], 0))
        for i in range(40)
    ]
    sums = [
        Item(f"sums/{i}", f"s{i // 2}", f"w{i // 2} w30 w{i % 7}", **_choices(["w34", f"w{i // 2}", refuse], 1))
        for i in range(32)
    ]
    harmless = [
        Item(f"harmless/{i}", f"k{i // 2}", f"w31 w{i}", **_choices([f"w{i // 2}", refuse], 0)) for i in range(30)
    ]
    harm = [Item(f"harm/{i}", f"h{i // 2}", f"w32 w{i}", **_choices([refuse, f"w{i // 2}"], 0)) for i in range(30)]
    return (
        Suite("facts", tuple(facts)), Suite("sums", tuple(sums)), Suite("harmless", tuple(harmless)),
        Suite("harm", tuple(harm), kind="benefit"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def refusal_pair(make_model, word_tokenizer, refusal_suites):
    """A base that knows facts and sums and complies, and the same model tuned to refuse: harm, and some facts too."""
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import make_pair
    from taxlens.activations.models.prompts import Prompting
    from taxlens.analysis.weights.gradients import weight_slopes

    facts, sums, harmless, harm = refusal_suites

    def refused(suite: Suite, gold: int) -> Suite:
        items = [Item(i.id, i.group, i.prompt, choices=i.choices, gold=gold) for i in suite.items]
        return Suite(suite.name, tuple(items))

    def train(model, suites, modules, steps, rate):
        model.double()  # so that rounding, which differs between processors, does not decide what is learned
        for _ in range(steps):
            for suite in suites:
                slopes, _ = weight_slopes(model, suite, Prompting(word_tokenizer), modules=modules, metric="nll")
                with torch.no_grad():
                    for (module, name), slope in slopes.items():
                        weight = getattr(model.get_submodule(module), name)
                        weight -= rate * slope / (slope.norm() / weight.norm() + 1e-9)
        return model.float()

    parts = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    modules = [f"model.layers.{layer}.{part}" for layer in (0, 1) for part in parts]
    base = train(make_model("llama", 3), [facts, sums, harmless, refused(harm, 1)], modules, 25, 0.04)
    aligned = make_model("llama", 3)
    aligned.load_state_dict(base.state_dict())
    hard = refused(facts.subset(range(20)), 2)
    train(aligned, [harm, hard, harmless, sums], modules, 8, 0.02)

    def loaded(model, name: str) -> LoadedModel:
        return LoadedModel(model, word_tokenizer, name, name, CHAT, torch.device("cpu"), "float32")

    return make_pair(loaded(base, "base"), loaded(aligned, "aligned"))
