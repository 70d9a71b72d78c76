"""Adapters as the field saves them: merged as PEFT computes them, the base left alone, the others named."""

import json

import peft
import pytest
import torch
from peft import LoraConfig

from taxlens.activations.models.loading import load_model
from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import ModelLoadError, PairMismatchError

pytestmark = pytest.mark.filterwarnings("ignore")
LORA = {"r": 4, "init_lora_weights": False}
KINDS = {
    "lora": LoraConfig(r=4, target_modules=["q_proj", "down_proj"]),
    "lora with its own biases": LoraConfig(target_modules=["q_proj", "v_proj"], lora_bias=True, **LORA),
    "lora, every bias trained": LoraConfig(target_modules=["q_proj", "v_proj"], bias="all", **LORA),
    "lora, its biases trained": LoraConfig(target_modules=["q_proj", "v_proj"], bias="lora_only", **LORA),
    "dora": LoraConfig(target_modules=["q_proj", "up_proj"], use_dora=True, r=4),
    "rslora of several ranks": LoraConfig(
        r=4,
        target_modules=["q_proj", "up_proj"],
        use_rslora=True,
        rank_pattern={"up_proj": 2},
        alpha_pattern={"q_proj": 3},
    ),
    "pissa": LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa"),
    "olora": LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="olora"),
    "lora on some layers": LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1]),
    "head saved whole": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "embedding saved whole": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "lora on the embedding": LoraConfig(target_modules=["q_proj", "embed_tokens"], **LORA),
    "lora on the head": LoraConfig(target_modules=["q_proj", "lm_head"], **LORA),
    "lora on both": LoraConfig(target_modules=["embed_tokens", "lm_head"], **LORA),
    "lora and new tokens": LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 7]),
    "ia3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "oft": peft.OFTConfig(target_modules=["q_proj"], oft_block_size=8, r=0),
    "boft": peft.BOFTConfig(target_modules=["q_proj"], boft_block_size=8),
    "vera": peft.VeraConfig(target_modules=["q_proj", "o_proj"], r=4),
    "loha": peft.LoHaConfig(target_modules=["q_proj"], r=4),
    "lokr": peft.LoKrConfig(target_modules=["q_proj"], r=4),
    "norms": peft.LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "trainable tokens": peft.TrainableTokensConfig(token_indices=[5, 9], target_modules=["embed_tokens"]),
}

MORE = {
    "lora on the embedding alone": LoraConfig(target_modules=["embed_tokens"], **LORA),
    "lora on the head alone": LoraConfig(target_modules=["lm_head"], **LORA),
    "lora on every linear layer": LoraConfig(target_modules="all-linear", **LORA),
    "both saved whole": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "lora on the embedding, head saved whole": LoraConfig(
        target_modules=["embed_tokens"], modules_to_save=["lm_head"], **LORA
    ),
    "lora on the embedding, kept tied": LoraConfig(
        target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True, **LORA
    ),
    "embedding saved whole, kept tied": LoraConfig(
        r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True
    ),
    "new tokens in both": LoraConfig(
        r=4, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 7], "lm_head": [3, 7]}
    ),
    "dora on the embedding": LoraConfig(target_modules=["embed_tokens", "q_proj"], use_dora=True, **LORA),
    "norms saved whole": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["input_layernorm"]),
    "some left out": LoraConfig(
        target_modules=["q_proj", "k_proj"], exclude_modules=["layers.0.self_attn.q_proj"], **LORA
    ),
    "weights by name": LoraConfig(target_parameters=["mlp.up_proj.weight"], target_modules=["q_proj"], **LORA),
    "hra": peft.HRAConfig(target_modules=["q_proj"], r=4),
    "shira": peft.ShiraConfig(target_modules=["q_proj"], r=4),
    "miss": peft.MissConfig(target_modules=["q_proj"], r=4),
    "fourierft": peft.FourierFTConfig(target_modules=["q_proj"], n_frequency=40),
    "randlora": peft.RandLoraConfig(target_modules=["q_proj"], r=4),
    "road": peft.RoadConfig(target_modules=["q_proj"], group_size=8),
    "delora": peft.DeloraConfig(target_modules=["q_proj"], r=4),
    "vblora": peft.VBLoRAConfig(target_modules=["q_proj"], r=2, num_vectors=8, vector_length=16),
}
"""Further members of the same kinds: where the vocabulary is adapted, what stays tied, and whatever else PEFT merges."""


def held(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE)])
def test_an_adapter_gives_what_peft_computes_and_the_base_stays_as_it_was(replicas, kind, tied):
    config = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": tied}
    base = replicas.save(replicas.model(**config), "base")
    folder, tuned = replicas.adapter(base, (KINDS | MORE)[kind], "adapter")
    digest = sha256_file(base / "model.safetensors")
    pair = replicas.pair(base, adapter=str(folder))
    alone = load_model(base, device="cpu")
    for name, parameter in held(pair.base.model).items():
        assert torch.equal(parameter, alone.model.get_parameter(name)), name
    assert sha256_file(base / "model.safetensors") == digest
    ids = torch.arange(34).view(2, 17)
    wanted, got, was = (model(input_ids=ids).logits for model in (tuned, pair.aligned.model, alone.model))
    scale = float(wanted.abs().max())
    assert float((got - wanted).abs().max()) < 2e-4 * scale
    assert float((wanted - was).abs().max()) > 1e-2 * scale, "the adapter does something"


@pytest.mark.parametrize("kind", ["lora with its own biases", "lora on the embedding", "ia3", "embedding saved whole"])
def test_scores_with_an_adapter_are_those_of_a_plain_loop(replicas, kind):
    base = replicas.save(replicas.model(attention_bias=True, tie_word_embeddings=True), "base")
    folder, tuned = replicas.adapter(base, KINDS[kind], "adapter")
    pair = replicas.pair(base, adapter=str(folder))
    assert replicas.gap(pair, replicas.suite(3), replicas.load(base), tuned) < 2e-3


def test_a_lora_on_a_tied_embedding_leaves_the_output_head_and_says_so(replicas):
    base = replicas.save(replicas.model(tie_word_embeddings=True), "base")
    folder, _ = replicas.adapter(base, KINDS["lora on the embedding"], "adapter")
    pair = replicas.pair(base, adapter=str(folder))
    head = pair.aligned.model.get_output_embeddings().weight
    assert torch.equal(head, pair.base.model.get_output_embeddings().weight)
    assert not torch.equal(pair.aligned.model.get_input_embeddings().weight, head)
    assert any("output head of its own" in note for note in pair.models.report.notes)
    assert any("only one of the two ties" in note for note in pair.models.report.notes)


def test_what_an_adapter_leaves_is_shared_in_memory(replicas):
    base = replicas.save(replicas.model(attention_bias=True), "base")
    folder, _ = replicas.adapter(base, KINDS["lora with its own biases"], "adapter")
    pair = replicas.pair(base, adapter=str(folder))
    one, two = (dict(m.model.named_parameters()) for m in (pair.base, pair.aligned))
    apart = {name for name in one if one[name].data_ptr() != two[name].data_ptr()}
    assert apart == {
        f"model.layers.{n}.self_attn.{r}_proj.{p}" for n in (0, 1) for r in "qv" for p in ("weight", "bias")
    }


def test_an_adapter_with_a_larger_vocabulary_is_put_on_a_base_that_grows_with_it(replicas):
    base = replicas.save(replicas.model(), "base")
    grown = replicas.load(base)
    grown.resize_token_embeddings(448, mean_resizing=False)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    folder, tuned = replicas.adapter(grown, config, "adapter")
    replicas.tokenizer(extra=("<|user|>", "<|assistant|>")).save_pretrained(folder)
    pair = replicas.pair(base, adapter=str(folder))
    assert pair.base.model.get_input_embeddings().weight.shape[0] == 384
    ids = torch.randint(0, 448, (2, 9))
    torch.testing.assert_close(
        pair.aligned.model(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-4, rtol=1e-4
    )
    assert any("embedding of 448 rows" in note for note in pair.models.report.notes)
    small = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    replicas.adapter(grown, small, "half")
    names = json.loads((replicas.root / "half" / "adapter_config.json").read_text())
    assert names["modules_to_save"] == ["embed_tokens"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
            "PROMPT_TUNING adapters change no weights",
        ),
        (
            peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
            "PREFIX_TUNING adapters change no weights",
        ),
        (peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "P_TUNING adapters change no weights"),
    ],
    ids=["prompt", "prefix", "p"],
)
def test_an_adapter_that_is_no_change_of_weights_is_named_as_what_it_is(replicas, config, words):
    base = replicas.save(replicas.model(), "base")
    folder, _ = replicas.adapter(base, config, "adapter")
    with pytest.raises(ModelLoadError, match=words) as found:
        replicas.pair(base, adapter=str(folder))
    assert "another base" not in str(found.value)


def test_an_adapter_that_repeats_layers_is_named(replicas):
    base = replicas.save(replicas.model(), "base")
    config = LoraConfig(r=4, target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)])
    folder, _ = replicas.adapter(base, config, "adapter")
    with pytest.raises(ModelLoadError, match="repeats layers"):
        replicas.pair(base, adapter=str(folder))


def test_an_adapter_of_another_base_is_still_refused_by_tensor(replicas):
    base = replicas.save(replicas.model(), "base")
    wide, deep = replicas.model(hidden_size=64), replicas.model(num_hidden_layers=3)
    for model, words in ((wide, "shape"), (deep, "no such module")):
        folder, _ = replicas.adapter(model, LoraConfig(target_modules=["q_proj"], **LORA), f"other {words}")
        with pytest.raises(PairMismatchError, match=rf"(?s)made for another base.*{words}"):
            replicas.pair(base, adapter=str(folder))
    wide = replicas.model(hidden_size=64)
    folder, _ = replicas.adapter(wide, peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "ia3")
    with pytest.raises(PairMismatchError, match=r"(?s)made for another base.*size mismatch"):
        replicas.pair(base, adapter=str(folder))


def test_an_adapter_that_names_another_base_is_put_on_with_a_note(replicas):
    base = replicas.save(replicas.model(), "base")
    folder, _ = replicas.adapter(base, KINDS["lora"], "adapter")
    assert not any("as its base" in note for note in replicas.pair(base, adapter=str(folder)).models.report.notes)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "maker/llama-chat"}))
    notes = replicas.pair(base, adapter=str(folder)).models.report.notes
    assert any("names maker/llama-chat as its base" in note for note in notes)


def test_a_second_adapter_in_a_subfolder_is_told_and_one_only_there_is_pointed_to(replicas):
    base = replicas.save(replicas.model(), "base")
    folder, _ = replicas.adapter(base, KINDS["lora"], "adapter")
    replicas.adapter(base, KINDS["lora"], "adapter/dpo")
    notes = replicas.pair(base, adapter=str(folder)).models.report.notes
    assert any("further adapters that are not read: dpo" in note for note in notes)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"(?s)no PEFT adapter here.*adapters inside +dpo"):
        replicas.pair(base, adapter=str(folder))


def test_an_adapter_given_as_the_aligned_model_is_told_where_it_belongs(replicas):
    base = replicas.save(replicas.model(), "base")
    folder, _ = replicas.adapter(base, KINDS["lora"], "adapter")
    with pytest.raises(ModelLoadError, match=r"(?s)this is an adapter, not a whole model.*pair\.adapter"):
        replicas.pair(base, folder)
    for file in base.glob("*.json"):
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelLoadError, match="a whole model and an adapter lie in one directory"):
        replicas.pair(base, folder)
