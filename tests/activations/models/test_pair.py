import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from taxlens.activations.models.loading import copy_sharing, load_model, place
from taxlens.activations.models.pair import load_pair
from taxlens.core.errors import ConfigError, ModelLoadError, PairMismatchError, UsageError

LAYOUTS = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "gpt_neox", "gpt2"]


@pytest.fixture
def checkpoint(make_checkpoint, tmp_path):
    """A copy of a small checkpoint to break."""
    shutil.copytree(make_checkpoint(), tmp_path / "broken")
    return tmp_path / "broken"


def logits(loaded, ids):
    return loaded.model(input_ids=ids).logits


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_family_loads_from_a_directory(make_pair, layout):
    pair = make_pair(layout)
    assert pair.base.anatomy.model_type == layout
    assert pair.report.config_differences == ()
    assert not any(parameter.requires_grad for parameter in pair.aligned.model.parameters())
    assert pair.base.model.config._attn_implementation == "eager"
    frame = pair.report.to_frame().set_index("field")
    assert not frame.loc["weights sha256", "same"]
    assert frame.loc[["architecture", "layers", "norm", "tokenizer sha256"], "same"].all()


def test_single_file_hash_is_the_files_own(make_checkpoint):
    import hashlib

    directory = make_checkpoint()
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    assert load_model(directory, device="cpu").sha256 == digest


def test_sharded_checkpoint_loads_to_the_same_weights(make_model, make_tokenizer, make_checkpoint, tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="10KB")
    make_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded, whole = load_model(tmp_path, device="cpu"), load_model(make_checkpoint(), device="cpu")
    for one, two in zip(sharded.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ModelLoadError, match="shards of the checkpoint are missing"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_is_given_to_both_models(make_checkpoint, dtype):
    pair = load_pair(make_checkpoint(), make_checkpoint(drift=0.05), dtype=dtype, device="cpu")
    for _, loaded in pair.models():
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_adapter_gives_what_peft_gives_and_leaves_the_base_alone(make_checkpoint, adapter):
    folder, ids, truth = adapter
    before = logits(load_model(make_checkpoint(), device="cpu"), ids)
    pair = load_pair(make_checkpoint(), adapter=folder, device="cpu")
    torch.testing.assert_close(logits(pair.aligned, ids), truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(pair.base, ids), before)
    assert not torch.allclose(truth, before)
    assert pair.aligned.sha256 != pair.base.sha256


def test_adapter_shares_every_tensor_that_it_leaves_alone(make_checkpoint, adapter):
    pair = load_pair(make_checkpoint(), adapter=adapter[0], device="cpu")
    base, aligned = (dict(loaded.model.named_parameters()) for _, loaded in pair.models())
    shared = {name for name in base if base[name].data_ptr() == aligned[name].data_ptr()}
    changed = {name for name in base if not torch.equal(base[name], aligned[name])}
    assert base.keys() == aligned.keys()
    assert shared == base.keys() - changed
    assert any("embed_tokens" in name for name in shared)
    assert all("proj" in name for name in changed)


def test_adapter_of_another_base_is_refused_with_the_tensor(make_checkpoint, adapter):
    wide = make_checkpoint(hidden_size=64)
    with pytest.raises(PairMismatchError, match=r"(?s)made for another base.*lora_[AB].*shape"):
        load_pair(wide, adapter=adapter[0], device="cpu")
    with pytest.raises(PairMismatchError, match="no such module in the base"):
        load_pair(make_checkpoint("gpt2"), adapter=adapter[0], device="cpu")


def test_adapter_that_is_a_pickle_or_missing_is_refused(make_checkpoint, adapter, tmp_path):
    shutil.copy(adapter[0] / "adapter_config.json", tmp_path)
    with pytest.raises(ModelLoadError, match="the adapter has no weights"):
        load_pair(make_checkpoint(), adapter=tmp_path, device="cpu")
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelLoadError, match="pickle adapters are refused"):
        load_pair(make_checkpoint(), adapter=tmp_path, device="cpu")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"xxxxxxxxxxxx")
    with pytest.raises(ModelLoadError, match="the adapter cannot be read"):
        load_pair(make_checkpoint(), adapter=tmp_path, device="cpu")
    with pytest.raises(ModelLoadError, match="no PEFT adapter here"):
        load_pair(make_checkpoint(), adapter=make_checkpoint(), device="cpu")


def test_neither_and_both_of_aligned_and_adapter_are_refused(make_checkpoint):
    with pytest.raises(UsageError, match="neither"):
        load_pair(make_checkpoint())
    with pytest.raises(UsageError, match="both"):
        load_pair(make_checkpoint(), make_checkpoint(), adapter="x")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"num_hidden_layers": 3}, "layers"),
        ({"hidden_size": 64}, "d_model"),
        ({"num_key_value_heads": 4}, "kv heads"),
        ({"intermediate_size": 40}, "d_mlp"),
    ],
)
def test_pair_of_different_shape_is_refused_in_one_screen(make_checkpoint, options, field):
    with pytest.raises(PairMismatchError) as found:
        load_pair(make_checkpoint(), make_checkpoint(**options), device="cpu")
    text = str(found.value)
    assert text.splitlines()[0] == "base and aligned are not versions of one model."
    assert field in text
    assert len(text.splitlines()) < 15
    assert found.value.exit_code == 3


def test_pair_of_different_architecture_is_refused(make_checkpoint):
    with pytest.raises(PairMismatchError, match=r"architecture +base llama, aligned qwen2"):
        load_pair(make_checkpoint(), make_checkpoint("qwen2"), device="cpu")


def test_pair_of_different_vocabularies_is_refused_by_token(make_checkpoint):
    words = [f"w{n}" for n in range(49, -1, -1)]
    with pytest.raises(PairMismatchError, match="tokens have other ids, first 'w0': base 7, aligned 56"):
        load_pair(make_checkpoint(), make_checkpoint(words=words), device="cpu")
    strange = [f"v{n}" for n in range(50)]
    with pytest.raises(PairMismatchError, match="50 tokens only in base"):
        load_pair(make_checkpoint(), make_checkpoint(words=strange), device="cpu")


def test_added_tokens_are_allowed_and_told(make_checkpoint, suite, tmp_path):
    from taxlens.activations.capture.capture import capture

    more = [f"w{n}" for n in range(50)] + ["<turn>", "<end>"]
    pair = load_pair(make_checkpoint(), make_checkpoint(vocab_size=70, words=more), device="cpu")
    assert pair.report.shared_vocab == 64
    notes = " ".join(pair.report.notes)
    assert "aligned has 2 added tokens" in notes
    assert "compared on the 64 ids that both have" in notes
    with capture(pair, suite, to=tmp_path / "acts.h5") as store:
        assert store.n_rows == 36


def test_token_that_a_model_has_no_embedding_for_is_refused(make_checkpoint, make_model, make_tokenizer, tmp_path):
    from taxlens.activations.capture.row_plan import make_plan
    from taxlens.activations.items.items import Item, Suite

    more = [f"w{n}" for n in range(60)]
    for name, size in (("base", 64), ("aligned", 70)):
        make_model(vocab_size=size).save_pretrained(tmp_path / name)
        make_tokenizer(more).save_pretrained(tmp_path / name)
    pair = load_pair(tmp_path / "base", tmp_path / "aligned", device="cpu")
    odd = Suite(name="s", items=(Item(id="1", group="g", text="w1 w59"),))
    with pytest.raises(PairMismatchError, match=r"(?s)no embedding for a token.*token id +66.*embedding rows +64"):
        make_plan(pair, [odd])


def test_other_rope_base_is_told_as_a_difference_beyond_the_weights(make_checkpoint):
    other = make_checkpoint(rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    report = load_pair(make_checkpoint(), other, device="cpu").report
    assert [key for key, _, _ in report.config_differences] == ["rope_parameters"]
    assert "weights alone do not explain the gap" in report.notes[-1]


def test_chat_template_of_aligned_serves_a_base_without_one(make_checkpoint):
    plain, chat = make_checkpoint(chat=None), make_checkpoint(drift=0.05)
    pair = load_pair(plain, chat, device="cpu")
    assert pair.base.chat_template == pair.aligned.chat_template != None  # noqa: E711
    assert "base has no chat template: aligned's serves both" in pair.report.notes
    swapped = load_pair(chat, plain, device="cpu")
    assert "aligned has no chat template: base's serves both" in swapped.report.notes
    none = load_pair(plain, plain, device="cpu")
    assert none.base.chat_template is None


def test_chat_template_may_be_a_file(make_checkpoint, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages[0]['content'] }}!")
    pair = load_pair(make_checkpoint(), make_checkpoint(), chat_template=str(tmp_path / "t.jinja"), device="cpu")
    assert pair.base.chat_template == "{{ messages[0]['content'] }}!"
    with pytest.raises(ConfigError, match="own, aligned, or a readable file"):
        load_pair(make_checkpoint(), make_checkpoint(), chat_template="alined", device="cpu")


def test_missing_checkpoints_are_refused(make_checkpoint, tmp_path, monkeypatch):
    import huggingface_hub

    with pytest.raises(ModelLoadError, match="no checkpoint directory here"):
        load_model(tmp_path / "none")

    def offline(*_args, **_options):
        raise OSError("we are offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelLoadError, match=r"(?s)the hub did not give it.*we are offline"):
        load_model("owner/name", revision="v1")


def test_hub_id_is_fetched_with_its_revision_and_without_pickles_or_code(make_checkpoint, monkeypatch):
    import huggingface_hub

    asked = {}

    def fetch(name, *, revision, allow_patterns, **_options):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(make_checkpoint())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert load_model("owner/name", revision="v1", device="cpu").source == "owner/name"
    assert asked["revision"] == "v1"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["patterns"])


def test_pickle_checkpoint_is_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="pickle checkpoints are refused"):
        load_model(checkpoint)
    (checkpoint / "pytorch_model.bin").unlink()
    with pytest.raises(ModelLoadError, match="no weights here"):
        load_model(checkpoint)


def test_truncated_weights_are_refused(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match=r"(?s)a weight file cannot be read.*truncated"):
        load_model(checkpoint, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_tensor(checkpoint, value):
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"(?s)NaN or infinite.*model\.norm\.weight.*1 of 32"):
        load_model(checkpoint, device="cpu")


def test_missing_and_surplus_tensors_are_refused(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    kept = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"(?s)lacks weights of its architecture.*up_proj"):
        load_model(checkpoint, device="cpu")
    tensors |= {"model.layers.1.mlp.up_proj.weight": kept, "model.layers.7.mlp.up_proj.weight": kept.clone()}
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"(?s)no place for.*layers\.7"):
        load_model(checkpoint, device="cpu")


def test_checkpoint_without_tokenizer_is_refused(checkpoint):
    for path in checkpoint.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="no readable tokenizer here"):
        load_model(checkpoint, device="cpu")


def test_architecture_that_is_not_served_is_refused_with_those_that_are(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "opt", "architectures": ["OPTForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=r"not served|cannot be loaded|lacks weights"):
        load_model(checkpoint, device="cpu")


def test_missing_gguf_file_is_refused_with_what_is_there(checkpoint):
    (checkpoint / "model.Q4.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match=r"(?s)GGUF file not found.*model\.Q4\.gguf"):
        load_model(checkpoint, gguf="model.Q8.gguf")
    with pytest.raises(ModelLoadError, match="this is no whole GGUF file"):
        load_model(checkpoint, gguf="model.Q4.gguf", device="cpu")


def test_absent_device_is_refused():
    with pytest.raises(ModelLoadError, match=r"(?s)this device is not here.*CUDA devices"):
        place("cuda:77")


def test_device_map_places_the_model(make_checkpoint):
    loaded = load_model(make_checkpoint(), device={"": "cpu"})
    assert loaded.device.type == "cpu"


def test_copy_that_shares_has_its_own_tree_and_the_same_tensors(make_model):
    model = make_model()
    twin = copy_sharing(model, apart={"model.norm.weight"})
    own = {n for n, p in twin.named_parameters() if p.data_ptr() != dict(model.named_parameters())[n].data_ptr()}
    assert own == {"model.norm.weight"}
    twin.model.layers[0].mlp.up_proj = torch.nn.Identity()
    assert isinstance(model.model.layers[0].mlp.up_proj, torch.nn.Linear)


@pytest.mark.slow
def test_gguf_checkpoint_loads_as_an_ordinary_model():
    from pathlib import Path

    folder = Path(__file__).parents[3] / ".cache" / "smollm2"
    files = sorted(folder.glob("*.gguf"))
    if not files:
        pytest.skip("make demo-real fetches the GGUF file")
    loaded = load_model(folder, gguf=files[0].name, device="cpu")
    saved = load_model(folder / "base", device="cpu")
    assert loaded.anatomy.n_layers == 30
    for (name, one), two in zip(loaded.model.named_parameters(), saved.model.parameters(), strict=True):
        assert torch.equal(one, two), name


@pytest.fixture(scope="module")
def gguf_directory(make_model, tmp_path_factory):
    """The small Llama as a GGUF file of float32 tensors with a byte-pair tokenizer; and the model itself."""
    import gguf

    model, folder = make_model(tie_word_embeddings=False), tmp_path_factory.mktemp("gguf")
    writer = gguf.GGUFWriter(folder / "small.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(
        ["<unk>", "<s>", "</s>", *(chr(97 + n) for n in range(26)), "ab", *(f"<{n}>" for n in range(34))]
    )
    writer.add_token_types([3, 3, 3, *[1] * 27, *[4] * 34])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    short = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
             "down": "ffn_down", "pre_attn": "attn_norm", "pre_mlp": "ffn_norm"}  # fmt: skip
    outer = {"embed": "token_embd", "final_norm": "output_norm", "unembed": "output"}
    from taxlens.activations.models.anatomy import anatomy

    for module in anatomy(model).modules:
        name = outer[module.role] if module.layer is None else f"blk.{module.layer}.{short[module.role]}"
        weight = model.get_submodule(module.name).weight.detach().numpy()
        if module.role in "qk":  # llama.cpp stores the halves of each head's rotary pairs side by side
            heads = 4 if module.role == "q" else 2
            weight = weight.reshape(heads, 2, 4, 32).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{name}.weight", weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder, model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gguf_file_gives_the_model_that_it_was_made_of(gguf_directory):
    folder, model = gguf_directory
    loaded = load_model(folder, gguf="small.gguf", device="cpu")
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(logits(loaded, ids), model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert loaded.anatomy.n_kv_heads == 2
    assert loaded.bridge() is loaded.bridge()
