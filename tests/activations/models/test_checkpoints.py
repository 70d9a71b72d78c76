"""Checkpoint directories as the field leaves them: what is read is what is hashed, and what cannot be read is named."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from taxlens.activations.models.contents import look, wrapper_of
from taxlens.activations.models.loading import load_model
from taxlens.core.errors import ModelLoadError

WEIGHTS = "model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def renamed(folder, change):
    """Rewrite the weight file of a directory with other names."""
    tensors = load_file(folder / WEIGHTS)
    save_file(
        {new: value for name, value in tensors.items() for new in [change(name)]}, folder / WEIGHTS, {"format": "pt"}
    )


def settings(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def same(loaded, model):
    return all(torch.equal(p, model.get_parameter(name)) for name, p in loaded.model.named_parameters())


def test_the_file_that_is_read_is_the_file_that_is_hashed_and_the_other_set_is_told(replicas):
    new, old = replicas.model(seed=1), replicas.model(seed=2)
    folder = replicas.save(new, "twice", max_shard_size="20KB")
    stale = replicas.save(old, "old")
    shutil.copy(stale / WEIGHTS, folder / WEIGHTS)
    loaded = load_model(folder, device="cpu")
    assert same(loaded, old)
    assert loaded.sha256 == hashlib.sha256((stale / WEIGHTS).read_bytes()).hexdigest()
    assert any("two sets of weights" in note for note in loaded.notes)
    (folder / WEIGHTS).unlink()
    sharded = load_model(folder, device="cpu")
    assert same(sharded, new)
    assert sharded.sha256 != loaded.sha256
    assert sharded.notes == ()


def test_shards_of_two_checkpoints_are_refused_and_a_further_set_is_told(replicas):
    folder = replicas.save(replicas.model(seed=1), "mixed", max_shard_size="20KB")
    shards = sorted(folder.glob("*.safetensors"))
    held = load_file(shards[0])
    name = next(iter(held))
    kept = shards[1].read_bytes()
    save_file(load_file(shards[1]) | {name: held[name]}, shards[1], {"format": "pt"})
    with pytest.raises(ModelLoadError, match=rf"(?s)not of one checkpoint.*{name}.*{shards[1].name}.*{shards[0].name}"):
        load_model(folder, device="cpu")
    shards[1].write_bytes(kept)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    several = next(path for path in shards if len(load_file(path)) > 1)
    name = next(iter(load_file(several)))
    named = index["weight_map"] | {name: next(path.name for path in shards if path != several)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": named}))
    with pytest.raises(ModelLoadError, match=rf"(?s)not of one checkpoint.*{name}.*index says"):
        load_model(folder, device="cpu")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for other in (
        "model-00009-of-00009.safetensors",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "model.fp16.safetensors",
    ):
        (folder / other).write_bytes(kept)
        assert any(f"not read: {other}" in note for note in load_model(folder, device="cpu").notes)
        (folder / other).unlink()
    assert load_model(folder, device="cpu").notes == ()


def test_a_reward_head_beside_an_output_head_is_left_aside(replicas):
    folder = replicas.save(model := replicas.model(), "both")
    save_file(load_file(folder / WEIGHTS) | {"score.weight": torch.zeros(1, 32)}, folder / WEIGHTS, {"format": "pt"})
    loaded = load_model(folder, device="cpu")
    assert same(loaded, model)
    assert any("score.weight" in note for note in loaded.notes)


def test_a_known_architecture_that_names_its_own_code_is_read_as_transformers_has_it_with_a_note(replicas):
    folder = replicas.save(replicas.model(), "named")
    settings(folder, auto_map={"AutoModelForCausalLM": "own.X", "AutoConfig": "own.C"})
    assert any("transformers' own llama" in note for note in load_model(folder, device="cpu").notes)


def test_a_file_that_is_not_read_does_not_change_the_hash(replicas):
    folder = replicas.save(replicas.model(), "one")
    before = load_model(folder, device="cpu").sha256
    save_file({"x": torch.zeros(2)}, folder / "optimizer.safetensors")
    assert load_model(folder, device="cpu").sha256 == before
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    with pytest.raises(ModelLoadError, match=r"(?s)nothing says which of these files.*optimizer"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "actor."])
def test_a_prefix_that_a_wrapper_left_is_taken_off_and_told(replicas, kind, prefix):
    model = (
        replicas.model(kind, num_local_experts=4, num_experts_per_tok=2) if kind == "mixtral" else replicas.model(kind)
    )
    folder = replicas.save(model, "wrapped")
    plain = load_model(folder, device="cpu")
    renamed(folder, lambda name: prefix + name)
    loaded = load_model(folder, device="cpu")
    assert same(loaded, plain.model)
    assert any(repr(prefix)[1:-1] in note for note in loaded.notes)


def test_names_that_wrappers_left_inside_are_taken_off(replicas):
    folder = replicas.save(model := replicas.model(), "inside")
    renamed(folder, lambda name: name.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn."))
    loaded = load_model(folder, device="cpu")
    assert same(loaded, model)
    assert any("_checkpoint_wrapped_module" in note for note in loaded.notes)


def test_a_prefix_that_only_some_weights_have_is_no_wrapper():
    assert wrapper_of(["a.model.embed_tokens.weight", "a.lm_head.weight", "a.model.norm.weight"]) == "a."
    assert wrapper_of(["a.model.embed_tokens.weight", "lm_head.weight"]) == ""
    assert wrapper_of(["model.embed_tokens.weight", "lm_head.weight"]) == ""
    assert wrapper_of(["embed_tokens.weight", "norm.weight"]) == ""
    assert wrapper_of(["pretrained_model.transformer.wte.weight", "v_head.summary.weight"]) == "pretrained_model."


@pytest.mark.parametrize("head", ["v_head.summary", "value_head", "critic_head"])
@pytest.mark.parametrize("prefix", ["", "pretrained_model."])
def test_a_value_head_is_left_aside_with_a_note(replicas, head, prefix):
    folder = replicas.save(model := replicas.model(), "ppo")
    renamed(folder, lambda name: prefix + name)
    extra = {f"{head}.weight": torch.zeros(1, 32), f"{head}.bias": torch.zeros(1)}
    save_file(load_file(folder / WEIGHTS) | extra, folder / WEIGHTS, {"format": "pt"})
    loaded = load_model(folder, device="cpu")
    assert same(loaded, model)
    assert any("value or reward head" in note for note in loaded.notes)


@pytest.mark.parametrize("tied", [True, False])
def test_a_reward_model_is_named_in_one_screen(replicas, tied):
    from transformers import AutoModelForSequenceClassification

    model = replicas.model(cls=AutoModelForSequenceClassification, num_labels=1, tie_word_embeddings=tied)
    folder = replicas.save(model, "reward")
    with pytest.raises(
        ModelLoadError, match=r"(?s)no output head over words.*LlamaForSequenceClassification.*score.weight"
    ):
        load_model(folder, device="cpu")
    settings(folder, architectures=["LlamaForCausalLM"])
    with pytest.raises(ModelLoadError, match="no output head over words"):
        load_model(folder, device="cpu")


def test_an_encoder_decoder_and_other_models_are_named_as_what_they_are(replicas):
    folder = replicas.save(replicas.model(), "odd")
    for kind, words in (("t5", "encoder-decoder"), ("bart", "encoder-decoder"), ("vit", "no causal language model")):
        settings(folder, model_type=kind, is_encoder_decoder=None)
        with pytest.raises(ModelLoadError, match=words) as found:
            load_model(folder, device="cpu")
        assert "truncated" not in str(found.value)
        assert len(str(found.value).splitlines()) < 8
    settings(folder, model_type="llama9")
    with pytest.raises(ModelLoadError, match="does not know this architecture"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json", "generate"])
def test_code_of_a_checkpoint_is_never_run(replicas, place):
    folder = replicas.save(replicas.model(), "code")
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass X: ...\n"
    (folder / "own.py").write_text(code)
    if place == "config.json":
        settings(folder, model_type="own_x", auto_map={"AutoConfig": "own.X", "AutoModelForCausalLM": "own.X"})
        with pytest.raises(ModelLoadError, match=r"(?s)needs code of its own.*own\.X"):
            load_model(folder, device="cpu")
        settings(folder, model_type="llama")
    elif place == "tokenizer_config.json":
        own = json.loads((folder / place).read_text()) | {"auto_map": {"AutoTokenizer": ["own.X", None]}}
        (folder / place).write_text(json.dumps(own))
    else:
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(code)
    load_model(folder, device="cpu")
    assert not list(folder.rglob("ran"))


def test_a_directory_of_several_models_is_refused_with_their_names(replicas):
    for name in ("checkpoint-100", "checkpoint-200"):
        replicas.save(replicas.model(), f"run/{name}")
    with pytest.raises(
        ModelLoadError, match=r"(?s)holds several models.*checkpoint-100, checkpoint-200.*Try: .*checkpoint-200"
    ):
        load_model(replicas.root / "run", device="cpu")
    (replicas.root / "empty").mkdir()
    with pytest.raises(ModelLoadError, match="no model here"):
        load_model(replicas.root / "empty", device="cpu")


def test_a_checkpoint_that_is_being_written_is_told_as_such(replicas):
    folder = replicas.save(replicas.model(), "now", max_shard_size="20KB")
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=r"(?s)a weight file cannot be read.*wait until it is written"):
        load_model(folder, device="cpu")
    shard.write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"(?s)a weight file cannot be read.*bytes +0"):
        load_model(folder, device="cpu")
    shard.unlink()
    with pytest.raises(ModelLoadError, match="shards of the checkpoint are missing"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(ModelLoadError, match="config.json cannot be read"):
        load_model(folder, device="cpu")


def test_a_hub_id_without_network_and_a_gated_one_get_one_screen(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def fails(error):
        def fetch(*_args, **_options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)

    fails(LocalEntryNotFoundError("nothing cached"))
    with pytest.raises(ModelLoadError, match=r"(?s)hub cannot be reached.*hf download") as found:
        load_model("owner/name")
    assert len(str(found.value).splitlines()) == 5
    fails(GatedRepoError.__new__(GatedRepoError))
    with pytest.raises(ModelLoadError, match=r"(?s)asks for permission.*hf auth login"):
        load_model("owner/name")


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}, "compressed-tensors"),
    ],
    ids=["bitsandbytes", "gptq", "awq", "compressed-tensors"],
)
def test_quantised_weights_without_their_package_name_it(replicas, method, package):
    pytest.importorskip("transformers")
    folder = replicas.save(replicas.model(), "packed")
    settings(folder, quantization_config=method)
    with pytest.raises(
        ModelLoadError, match=rf"(?s)quantised weights cannot be read here.*pip install {package}"
    ) as found:
        load_model(folder, device="cpu")
    assert "copy" not in str(found.value)


def test_eight_bit_floats_are_dequantised_on_loading_with_a_note(replicas):
    folder = replicas.save(model := replicas.model(hidden_size=128, intermediate_size=128), "fp8")
    tensors, wanted = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if "proj" in name]:
        weight = tensors[name]
        scale = weight.abs().max() / 448
        tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)
        wanted[name] = tensors[name].float() * scale
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    settings(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    loaded = load_model(folder, device="cpu")
    assert any("fp8: dequantised to float32" in note for note in loaded.notes)
    for name, weight in wanted.items():
        torch.testing.assert_close(loaded.model.get_parameter(name), weight, rtol=1e-6, atol=1e-7)
    assert not torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight)
    assert not hasattr(loaded.model.config, "quantization_config")


def test_what_is_looked_at_is_nothing_but_headers(replicas):
    contents = look(replicas.save(replicas.model(), "plain"))
    assert (contents.wrapper, contents.left_aside, contents.notes) == ("", (), ())
    assert [path.name for path in contents.files] == [WEIGHTS]
