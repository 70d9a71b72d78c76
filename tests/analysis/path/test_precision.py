"""Coarse weights, placed models, long prompts: what changes the memory or the arithmetic and must not change the answer."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils import checkpoint as recompute

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import encode_suite
from taxlens.activations.models.loading import LoadedModel, load_model
from taxlens.activations.models.pair import make_pair
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import differentiate, shard_of
from taxlens.analysis.path.shard_walk import checkpointed
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import difference_of

QUICK = {"perplexity": False, "metrics": ("nll", "probability")}


def as_dtype(pair, dtype):
    import copy

    ends = [
        dataclasses.replace(m, model=copy.deepcopy(m.model).to(dtype), dtype=str(dtype)[6:])
        for m in (pair.base, pair.aligned)
    ]
    return make_pair(*ends)


def test_bfloat16_weights_are_summed_in_float32_and_give_nearly_the_same_effects(build, words):
    coarse = build("llama", size=0.3, dtype=torch.bfloat16)
    fine = as_dtype(coarse, torch.float32)
    suite = words(8)
    options = QUICK | {"tolerance": 0.2, "max_gradients": 7}
    found, wanted = attribute(coarse, suite, **options), attribute(fine, suite, **options)
    rows = encode_suite(suite, coarse.base.tokenizer)
    shard = shard_of(coarse.base, rows, batch_tokens=64)
    with walk(coarse) as path:
        contraction = Contraction(path.model, difference_of(coarse), ("component", "head"))
        with contraction:
            tally, scores = differentiate(path.to(0.4), shard, contraction)
    assert {values.dtype for values in tally.units.values()} == {torch.float32}
    assert scores.dtype == np.float64
    effects = [f.effects("words", "nll")[1].mean(axis=0) for f in (found, wanted)]
    assert np.corrcoef(*effects)[0, 1] > 0.999
    assert np.abs(effects[0] - effects[1]).sum() < 0.05 * np.abs(effects[1]).sum()
    assert all(p.dtype == torch.bfloat16 for p in coarse.base.model.parameters())


def test_a_model_placed_by_a_device_map_gives_the_same_effects(build, words, tmp_path):
    pair = build("llama", dtype=torch.float32)
    placed = []
    for name in ("base", "aligned"):
        end: LoadedModel = getattr(pair, name)
        end.model.save_pretrained(tmp_path / name)
        end.tokenizer.save_pretrained(tmp_path / name)
        parts = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "cpu",
                 "model.norm": "cpu", "lm_head": "cpu"}  # fmt: skip
        placed.append(load_model(tmp_path / name, device=parts))
    suite = words(4)
    options = QUICK | {"max_gradients": 3}
    found = attribute(make_pair(*placed), suite, **options).effects("words", "nll")[1]
    assert found == pytest.approx(attribute(pair, suite, **options).effects("words", "nll")[1], rel=1e-4, abs=1e-5)


def long_suite(n=3, length=60):
    prompt = " ".join(f"w{i % 40}" for i in range(length))
    return Suite(
        "long", tuple(Item(f"l{i}", f"g{i}", f"w{i} {prompt}", choices=(" w1", " w2"), gold=0) for i in range(n))
    )


def test_long_prompts_with_recomputed_blocks_give_the_same_effects_and_keep_less(build):
    pair, suite = build("llama", max_position_embeddings=128), long_suite()
    options = QUICK | {"max_gradients": 3, "tokens": False}
    plain = attribute(pair, suite, **options).effects("long", "nll")[1]
    again = attribute(pair, suite, recompute=True, **options).effects("long", "nll")[1]
    assert again == pytest.approx(plain, abs=1e-9)
    assert kept_bytes(pair, suite, on=True) < 0.6 * kept_bytes(pair, suite, on=False)


def kept_bytes(pair, suite, *, on):
    """Bytes that the forward pass keeps for the backward pass."""
    rows = encode_suite(suite, pair.base.tokenizer)
    shard = shard_of(pair.base, rows, batch_tokens=512)
    kept = []

    def pack(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with walk(pair) as path:
        contraction = Contraction(path.model, difference_of(pair), ("component",), keep_tokens=False)
        with contraction, checkpointed(path.model, on), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            inside = recompute.set_checkpoint_early_stop(False)
            with inside, torch.enable_grad():
                shard.bundles[0].logits(path.to(0.5))
    return sum(kept)


def test_prompts_beyond_the_context_are_refused_by_item(build):
    from taxlens.core.errors import TaxlensError

    with pytest.raises(TaxlensError, match="l0"):
        attribute(build("llama"), long_suite(length=90), **QUICK)
