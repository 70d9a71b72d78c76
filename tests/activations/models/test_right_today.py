"""What is right and stays right: ties, old checkpoints' left-overs, windows, soft caps, rope, half precision."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

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
