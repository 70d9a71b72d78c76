"""What is right and stays right: ties, old checkpoints' left-overs, windows, soft caps, rope, half precision."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.filterwarnings("ignore")
WEIGHTS = "model.safetensors"
LONG = {
    "max_position_embeddings": 256, "original_max_position_embeddings": 24,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 24,
    },
}  # fmt: skip
PAIRS = {
    "window": ("mistral", {"sliding_window": 8, "head_dim": 8}), "soft caps": ("gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "llama3 rope": ("llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
    "longrope": ("phi3", LONG),
    "dynamic": ("llama", {"max_position_embeddings": 24, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
}  # fmt: skip


@pytest.mark.parametrize("ties", [(True, False), (False, True), (True, True)])
def test_tied_and_untied_pairs_score_and_close(replicas, ties):
    models = [replicas.model(tie_word_embeddings=tie) for tie in ties]
    if ties[0] != ties[1]:
        tied = models[ties.index(True)]
        for name, parameter in models[ties.index(False)].named_parameters():
            source = "model.embed_tokens.weight" if name == "lm_head.weight" else name
            parameter.data.copy_(tied.get_parameter(source).data)
    replicas.drift(models[1])
    folders = [replicas.save(model, name) for model, name in zip(models, ("base", "aligned"), strict=True)]
    pair, suite = replicas.pair(*folders), replicas.suite(3)
    assert replicas.gap(pair, suite, *map(replicas.load, folders)) < 1e-5
    found = pair.attribute(suite, metrics=("nll",), bootstrap=100)
    tax = pair.tax(suite, templates=("plain",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
    assert found.closed
    assert found.effects("facts", "nll")[1].sum(axis=1).mean() == pytest.approx(tax, rel=0.01, abs=2e-4)


@pytest.mark.parametrize("left", ["model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_left_overs_of_old_checkpoints_are_read_past(replicas, left):
    folder = replicas.save(replicas.model(), "old")
    save_file(load_file(folder / WEIGHTS) | {left: torch.ones(4)}, folder / WEIGHTS, {"format": "pt"})
    pair, suite = replicas.pair(folder, folder), replicas.suite(2)
    assert replicas.gap(pair, suite, replicas.load(folder)) < 1e-5


@pytest.mark.parametrize("kind", PAIRS)
def test_windows_caps_and_ropes_score_short_and_long_rows_as_alone(replicas, kind):
    name, config = PAIRS[kind]
    models = replicas.model(name, **config), replicas.drift(replicas.model(name, **config))
    folders = [replicas.save(model, n) for model, n in zip(models, ("base", "aligned"), strict=True)]
    pair = replicas.pair(*folders)
    short = replicas.suite(2, name="short")
    long = replicas.suite(
        2,
        name="long",
        prompt="Lima is a city in the country of Peru. Nara is a city in the country of Japan. {city} is a city in the country of",
    )
    rows = [
        json.loads(line) for s in ("short", "long") for line in (replicas.root / f"{s}.jsonl").read_text().splitlines()
    ]
    file = replicas.root / "mixed.jsonl"
    file.write_text("\n".join(json.dumps(row | {"id": f"m{n}"}) for n, row in enumerate(rows)) + "\n")
    import taxlens

    mixed = taxlens.suite(file)
    lengths = [len(pair.base.tokenizer.encode(item.prompt)) for item in mixed.items]
    assert min(lengths) < 24 < max(lengths)
    assert len(short) == len(long) == 2
    assert replicas.gap(pair, mixed, *map(replicas.load, folders)) < 1e-4
    found = pair.attribute(mixed, metrics=("nll",), bootstrap=100)
    tax = pair.tax(mixed, templates=("plain",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
    closure = found.closure_frame().iloc[0]
    assert closure.tax == pytest.approx(tax, abs=1e-4)
    assert abs(closure.residual) <= 0.01 * abs(tax) + 2e-4


def test_half_precision_scores_are_those_of_half_precision(replicas):
    folder = replicas.save(replicas.model(), "half")
    pair, suite = replicas.pair(folder, folder, dtype="bfloat16"), replicas.suite(2)
    plain = replicas.load(folder).to(torch.bfloat16)
    wanted = replicas.scores(plain, pair.base.tokenizer, suite)
    found = pair.tax(suite, templates=("plain",), bootstrap=100).scores[0][0].logp
    assert np.abs(found - wanted).max() < 0.5


def both(replicas, **options):
    """A base, a moved one, and their folders."""
    base, aligned = replicas.model(**options), replicas.drift(replicas.model(**options))
    return base, aligned


@pytest.mark.parametrize("kind", ["its file holds two tensors", "its config says untied", "saved by half"])
def test_a_config_and_a_file_that_disagree_on_tying_are_read_as_transformers_reads_them(replicas, kind):
    base, aligned = both(replicas, tie_word_embeddings=kind != "its config says untied")
    folders = [replicas.save(base, "base"), replicas.save(aligned, "aligned")]
    if kind == "its file holds two tensors":
        other = replicas.drift(replicas.model(tie_word_embeddings=False), seed=4).lm_head.weight.detach().clone()
        held = load_file(folders[1] / WEIGHTS) | {"lm_head.weight": other}
        save_file(held, folders[1] / WEIGHTS, {"format": "pt"})
    elif kind == "saved by half":
        for folder in folders:
            half = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
            save_file(half, folder / WEIGHTS, {"format": "pt"})
    pair = replicas.pair(*folders)
    assert replicas.gap(pair, replicas.suite(3), *map(replicas.load, folders)) < 1e-5
    plain = replicas.load(folders[1])
    assert pair.aligned.anatomy.tied == (plain.lm_head.weight is plain.model.embed_tokens.weight)
    assert pair.attribute(replicas.suite(3), metrics=("nll",), bootstrap=100).closed


@pytest.mark.parametrize(
    "kind", ["unknown keys", "named default", "on the router", "experts by name", "fused and turned"]
)
def test_adapters_of_all_ages_score_as_peft_computes(replicas, kind):
    experts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    name = {"on the router": "mixtral", "experts by name": "qwen3_moe", "fused and turned": "gpt2"}.get(kind, "llama")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    if kind == "on the router":
        config = LoraConfig(r=4, target_modules=["q_proj", "gate"])
    elif kind == "experts by name":
        config = LoraConfig(r=4, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"])
    elif kind == "fused and turned":
        config = LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    options = experts | ({"head_dim": 8, "decoder_sparse_step": 1} if name == "qwen3_moe" else {})
    base = replicas.save(replicas.model(name, **(options if name in ("mixtral", "qwen3_moe") else {})), "base")
    folder, tuned = replicas.adapter(base, config, "adapter")
    if kind == "unknown keys":
        settings = json.loads((folder / "adapter_config.json").read_text()) | {
            "a_key_of_tomorrow": 1,
            "eva_config": None,
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    elif kind == "named default":
        file = folder / "adapter_model.safetensors"
        held = {n.replace(".weight", ".default.weight"): tensor for n, tensor in load_file(file).items()}
        save_file(held, file, {"format": "pt"})
    pair = replicas.pair(base, adapter=str(folder))
    assert replicas.gap(pair, replicas.suite(3), replicas.load(base), tuned) < 1e-4
    assert pair.attribute(replicas.suite(2), metrics=("nll",), bootstrap=100).closed


CHATS = {
    "today's date": "{{ bos_token }}{{ strftime_now('%d %b %Y') }} {turns}",
    "thinking": "{chat}{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
    "no generation prompt": "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}",
    "ends in a space": "{{ bos_token }}Q: {{ messages[-1]['content'] }}\nA: ",
    "ends in two lines": "{{ bos_token }}Q: {{ messages[-1]['content'] }}\n\n",
}


@pytest.mark.parametrize("kind", CHATS)
def test_chat_templates_of_every_make_score_as_a_plain_loop(replicas, kind):
    chat = (
        CHATS[kind].replace("{chat}", replicas.chat).replace("{turns}", replicas.chat.removeprefix("{{ bos_token }}"))
    )
    tokenizer = replicas.tokenizer(chat=chat)
    base, aligned = both(replicas)
    folders = [replicas.save(m, n, tokenizer=tokenizer) for m, n in ((base, "base"), (aligned, "aligned"))]
    pair = replicas.pair(*folders)
    assert replicas.gap(pair, replicas.suite(3), base, aligned, chat=chat) < 1e-5


@pytest.mark.parametrize("kind", ["no BOS and no pad", "EOS after the text", "a small limit", "cut and filled"])
def test_tokenizers_of_every_make_score_as_a_plain_loop(replicas, kind):
    tokenizer = replicas.tokenizer()
    if kind == "no BOS and no pad":
        raw = json.loads(tokenizer.backend_tokenizer.to_str()) | {"post_processor": None}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), eos_token="</s>")
    elif kind == "EOS after the text":
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    elif kind == "a small limit":
        tokenizer.model_max_length = 512
    else:
        tokenizer.backend_tokenizer.enable_truncation(4)
        tokenizer.backend_tokenizer.enable_padding(length=64)
    base, aligned = both(replicas)
    folders = [replicas.save(m, n, tokenizer=tokenizer) for m, n in ((base, "base"), (aligned, "aligned"))]
    pair, suite = replicas.pair(*folders), replicas.suite(3)
    plain = replicas.tokenizer()
    if kind == "no BOS and no pad":
        plain.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    found = pair.tax(suite, bootstrap=100).scores[0]
    for model, scores in zip((base, aligned), found, strict=True):
        wanted = replicas.scores(model, plain, suite)
        if kind == "EOS after the text":  # the plain loop's rows, without the EOS that would stand in their midst
            wanted = replicas.scores(model, replicas.tokenizer(), suite)
        assert np.abs(scores.logp - wanted).max() < 1e-5


def test_left_overs_of_old_pythias_are_read_past(replicas):
    folder = replicas.save(replicas.model("gpt_neox"), "old")
    place = "gpt_neox.layers.0.attention."
    extra = {
        f"{place}bias": torch.ones(1, 1, 8, 8, dtype=torch.bool), f"{place}masked_bias": torch.tensor(-1e9),
        f"{place}rotary_emb.inv_freq": torch.ones(4),
    }  # fmt: skip
    save_file(load_file(folder / WEIGHTS) | extra, folder / WEIGHTS, {"format": "pt"})
    pair = replicas.pair(folder, folder)
    assert replicas.gap(pair, replicas.suite(2), replicas.load(folder)) < 1e-5


def test_generation_settings_that_contradict_themselves_do_not_hinder(replicas):
    base, aligned = both(replicas)
    folders = [replicas.save(base, "base"), replicas.save(aligned, "aligned")]
    odd = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 5], "_from_model_config": False}
    (folders[1] / "generation_config.json").write_text(json.dumps(odd))
    pair = replicas.pair(*folders)
    assert replicas.gap(pair, replicas.suite(2), base, aligned) < 1e-5
