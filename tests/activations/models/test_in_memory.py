"""Models that a notebook holds: the same numbers as from disk, and what was given is left as it was."""

import copy

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

import taxlens
from taxlens.activations.models.in_memory import from_memory, memory_sha256
from taxlens.core.errors import ModelLoadError, PairMismatchError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")


def tables(pair, suite):
    """Everything that a pair's tables hold of a suite."""
    tax = pair.tax(suite, templates=("plain", "chat"), bootstrap=100).to_frame()
    found = pair.attribute(suite, metrics=("probability", "nll"), levels=("component", "head"), bootstrap=100)
    lens, cut = pair.logit_lens(suite, bootstrap=100), pair.restoration(suite)
    return (
        tax, found.to_frame(), found.closure_frame().drop(columns="seconds", errors="ignore"), found.items_frame(),
        found.tokens_frame(), found.path_frame(), lens.to_frame(), cut.to_frame(),
    )  # fmt: skip


def same(one, two):
    for left, right in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(left, right)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_pair_in_memory_gives_the_tables_of_the_same_pair_on_disk(replicas, kind):
    base, aligned = replicas.model(kind), replicas.drift(replicas.model(kind))
    suite, tokenizer = replicas.suite(3), replicas.tokenizer()
    disk = replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))
    base.train().requires_grad_(True)  # as it comes out of a training loop
    aligned.train().requires_grad_(True)
    before = memory_sha256(base), memory_sha256(aligned)
    memory = taxlens.load_pair(base, aligned, tokenizer=tokenizer)
    same(tables(disk, suite), tables(memory, suite))
    assert (memory_sha256(base), memory_sha256(aligned)) == before
    assert base.training
    assert all(p.requires_grad and p.grad is None for p in base.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
    assert memory.base.sha256 == before[0]
    assert memory.base.model.get_input_embeddings().weight.data_ptr() == base.get_input_embeddings().weight.data_ptr()
    mixed = taxlens.load_pair(str(replicas.root / "base"), aligned, device="cpu")
    assert mixed.aligned.sha256 == before[1]


def test_a_hash_is_of_what_is_in_memory_now(replicas):
    model = replicas.model()
    before = memory_sha256(model)
    assert memory_sha256(copy.deepcopy(model)) == before
    with torch.no_grad():
        model.lm_head.weight[3, 5] += 1e-6
    assert memory_sha256(model) != before


@pytest.mark.parametrize("state", ["as trained", "merged", "disabled"])
def test_a_peft_model_is_base_and_aligned_at_once(replicas, state):
    base = replicas.save(replicas.model(), "base")
    folder, tuned = replicas.adapter(base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]), "lora")
    suite, tokenizer = replicas.suite(3), replicas.tokenizer()
    disk = replicas.pair(base, adapter=str(folder))
    if state == "merged":
        tuned.merge_adapter()
    elif state == "disabled":
        tuned.base_model.disable_adapter_layers()
        tuned.base_model.enable_adapter_layers()
    before = {name: p.detach().clone() for name, p in tuned.named_parameters()}
    for pair in (taxlens.load_pair(tuned, tokenizer=tokenizer), taxlens.load_pair(str(base), tuned, device="cpu")):
        one, two = (
            pair.tax(suite, templates=("plain",), bootstrap=100).to_frame(),
            disk.tax(suite, templates=("plain",), bootstrap=100).to_frame(),
        )
        pd.testing.assert_frame_equal(one, two, atol=1e-5 if state == "merged" else 1e-7)
    assert all(torch.equal(p, before[name]) for name, p in tuned.named_parameters())


def test_a_model_that_an_adapter_was_put_into_counts_without_it_as_base(replicas):
    model, tokenizer = replicas.model(), replicas.tokenizer()
    wanted = model(input_ids=torch.arange(9)[None]).logits
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    pair = taxlens.load_pair(model, tuned, tokenizer=tokenizer)  # get_peft_model has changed `model` itself
    got = pair.base.model(input_ids=torch.arange(9)[None]).logits
    assert torch.equal(got, wanted)
    assert not torch.allclose(pair.aligned.model(input_ids=torch.arange(9)[None]).logits, wanted)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_bridge_gives_what_its_model_gives(replicas, kind):
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    base, aligned = replicas.model(kind), replicas.drift(replicas.model(kind))
    suite, tokenizer = replicas.suite(2), replicas.tokenizer()
    wanted = tables(taxlens.load_pair(base, aligned, tokenizer=tokenizer), suite)
    bridges = []
    for model in (copy.deepcopy(base), copy.deepcopy(aligned)):
        name = type(model).__name__
        model.config.architectures = [name]
        bridges.append(build_bridge_from_module(model, name, hf_config=model.config, model_name=name))
    same(wanted, tables(taxlens.load_pair(*bridges, tokenizer=tokenizer), suite))
    bridges[0].compatibility_mode = True
    with pytest.raises(ModelLoadError, match="this bridge's weights were processed"):
        taxlens.load_pair(*bridges, tokenizer=tokenizer)


def test_what_cannot_be_read_from_memory_is_refused_in_words(replicas):
    model, tokenizer = replicas.model(), replicas.tokenizer()
    with pytest.raises(UsageError, match="a model in memory needs its tokenizer"):
        taxlens.load_pair(model, model)
    with pytest.raises(ModelLoadError, match="this is no model that can be read"):
        taxlens.load_pair(torch.nn.Linear(2, 2), model, tokenizer=tokenizer)
    with pytest.raises(UsageError, match="neither"):
        taxlens.load_pair(model, tokenizer=tokenizer)
    with pytest.raises(PairMismatchError, match="layers"):
        taxlens.load_pair(model, replicas.model(num_hidden_layers=3), tokenizer=tokenizer)
    broken = replicas.model()
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(ModelLoadError, match="NaN or infinite"):
        from_memory(broken, tokenizer)


def test_a_chain_and_seeds_show_themselves_and_every_checkpoint_has_its_tax(replicas, monkeypatch):
    from taxlens.activations.models import pair as module

    base = replicas.save(replicas.model(), "base")
    steps = [replicas.save(replicas.drift(replicas.model(), 0.01 * n), f"step{n}") for n in (1, 2, 3)]
    loads = []
    own = module.load_model
    monkeypatch.setattr(module, "load_model", lambda source, **o: (loads.append(str(source)), own(source, **o))[1])
    chain = taxlens.load_pair(str(base), [str(s) for s in steps], device="cpu")
    assert loads.count(str(base)) == 1
    assert len(loads) == 4
    suite = replicas.suite(3)
    text = repr(chain)
    assert "chain of 3 checkpoints" in text
    assert all(step.name in text for step in steps)
    taxes = chain.tax(suite, templates=("plain",), bootstrap=100)
    frame = taxes.to_frame()
    assert list(frame.checkpoint.unique()) == ["step1", "step2", "step3"]
    for step in steps:
        alone = replicas.pair(base, step).tax(suite, templates=("plain",), bootstrap=100).to_frame()
        pd.testing.assert_frame_equal(taxes[step.name].to_frame(), alone)
    assert taxes.last is taxes["step3"]
    with pytest.raises(UsageError, match="step1"):
        taxes["step9"]
    seeds = taxlens.load_pair(str(base), [str(s) for s in steps], several="seeds", device="cpu")
    assert "3 seeds" in repr(seeds)
    assert seeds.tax(suite, templates=("plain",), bootstrap=100).kind == "seeds"
    with pytest.raises(UsageError, match="must be one of"):
        taxlens.load_pair(str(base), str(steps[0]), several="seed")
