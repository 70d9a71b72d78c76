"""Whatever makes the two models of a pair answer different questions is a row of the account, never lost in it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.activations.models.prompts import as_asked, asked_apart, one_prompting
from taxlens.analysis.interventions.effects import APART
from taxlens.analysis.interventions.methods import swap_tables
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.polyline import attribute_polyline
from taxlens.analysis.tax.tax import measure_tax

METRICS = ("probability", "nll", "accuracy")
CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
OTHER = "{{ bos_token }}{% for m in messages %}Q: {{ m['content'] }}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"


def tokenizer(*, chat=None, extra=(), normalizer=None, bos=False):
    """A byte tokenizer: every text has tokens, with or without BOS, a normaliser, and added tokens."""
    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={name: n for n, name in enumerate(names)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if normalizer is not None:
        inner.normalizer = normalizer
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = chat
    made.add_tokens(list(extra), special_tokens=True)
    return made


def pair_of(base, aligned, *, layout="llama", configs=({}, {}), drift=0.02):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"intermediate_size": 24, "vocab_size": 264, "max_position_embeddings": 256, "pad_token_id": 0}
    sizes |= {"bos_token_id": 1, "eos_token_id": 2}
    first = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(layout, **(sizes | configs[0])), attn_implementation="eager"
    )
    with torch.no_grad():
        for p in first.parameters():
            p.copy_(torch.randn_like(p) * 0.15 if p.dim() > 1 else p)
    second = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(layout, **(sizes | configs[1])), attn_implementation="eager"
    )
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        for p in second.parameters():
            p.add_(drift * torch.randn_like(p))
    return make_pair(*(
        LoadedModel(m.eval().requires_grad_(False), t, n, n, t.chat_template, torch.device("cpu"), "float32")
        for m, t, n in ((first, base, "base"), (second, aligned, "aligned"))
    ))  # fmt: skip


def suite(n=8, *, long=False):
    cities = ["Lyon", "Lima", "Kyoto", "Turin", "Cairo", "Pune", "Nice", "Oslo"]
    more = "The people of Lima live in Peru. " * 2 if long else ""
    items = [
        Item(f"i{i}", f"g{i % 4}", f"{more if i % 3 == 0 else ''}{cities[i % 8]} is in", choices=(" France", " Peru"), gold=i % 2)
        for i in range(n)
    ]  # fmt: skip
    return Suite("facts", tuple(items))


PHI = {"head_dim": 8, "original_max_position_embeddings": 40, "rope_parameters": {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 40,
}}  # fmt: skip


def rope(theta):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


CASES = {
    "V5: aligned has chat tokens that base lacks": (
        "chat", {"base": tokenizer(), "aligned": tokenizer(chat=CHAT, extra=("<|user|>", "<|assistant|>"))}, "tokenizer"),
    "H6: two chat templates": ("chat", {"base": tokenizer(chat=OTHER), "aligned": tokenizer(chat=CHAT)}, "chat template"),
    "N1: another normaliser": (
        "plain", {"base": tokenizer(), "aligned": tokenizer(normalizer=normalizers.Lowercase())}, "tokenizer"),
    "another BOS rule": ("plain", {"base": tokenizer(), "aligned": tokenizer(bos=True)}, "tokenizer"),
    "M11: another rope_theta": (
        "plain", {"base": tokenizer(), "aligned": tokenizer(), "configs": (rope(1e4), rope(1e2))}, "rope_parameters"),
    "another norm epsilon": (
        "plain", {"base": tokenizer(), "aligned": tokenizer(), "configs": ({}, {"rms_norm_eps": 0.1})}, "rms_norm_eps"),
    "a sliding window in one": (
        "plain",
        {"base": tokenizer(), "aligned": tokenizer(), "layout": "mistral",
             "configs": ({"sliding_window": None, "head_dim": 8}, {"sliding_window": 6, "head_dim": 8})}, "sliding_window"),
}  # fmt: skip


def both(pair, some, template, **options):
    tax = measure_tax(pair, some, templates=(template,), metrics=METRICS, bootstrap=50).to_frame().set_index("metric")
    found = attribute(pair, some, template=template, metrics=METRICS, bootstrap=50, perplexity=False, **options)
    return tax, found, found.closure_frame().set_index("metric")


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_effect_of_weights_is_a_row_and_the_rows_sum_to_the_measured_tax(case):
    template, made, cause = CASES[case]
    pair, some = pair_of(**made), suite()
    tax, found, closure = both(pair, some, template)
    frame = found.to_frame()
    for metric in METRICS:
        row = closure.loc[metric]
        assert row.tax == pytest.approx(tax.loc[metric, "tax"], abs=2e-5)
        assert row.attributed + row.prompt_and_config + row.residual == pytest.approx(row.tax, abs=1e-9)
        assert not row.closed
        assert cause in row.reason
        for level in ("component", "singular"):
            here = frame[(frame.metric == metric) & (frame.level == level)]
            assert here.effect.sum() + row.residual == pytest.approx(row.tax, abs=1e-6)
            assert here.loc[here.component == APART, "effect"].item() == pytest.approx(row.prompt_and_config)
    assert abs(closure.loc["nll", "prompt_and_config"]) > 1e-3
    assert abs(closure.loc["nll", "residual"]) < 0.02 * abs(closure.loc["nll", "attributed"])
    assert not found.closed
    assert "no effect of weights" in repr(found)
    items = found.items_frame()
    mine = items[(items.metric == "nll") & (items.component == APART)]
    assert mine.effect.mean() == pytest.approx(closure.loc["nll", "prompt_and_config"])


def test_a_pair_that_is_asked_the_same_has_no_such_row():
    pair, some = pair_of(base=tokenizer(chat=CHAT), aligned=tokenizer(chat=CHAT)), suite()
    for template in ("plain", "chat"):
        tax, found, closure = both(pair, some, template)
        assert found.closed
        assert APART not in set(found.to_frame().component)
        assert (closure.prompt_and_config == 0).all()
        assert closure.tax.to_numpy() == pytest.approx(tax.tax[list(closure.index)].to_numpy(), abs=2e-5)


def test_a_model_that_computes_more_than_its_weights_say_is_found_out():
    """A hook on one model stands for whatever nobody thought of."""
    pair, some = pair_of(base=tokenizer(), aligned=tokenizer()), suite()
    block = pair.aligned.anatomy.blocks[0]
    handle = block.register_forward_hook(lambda m, a, out: (out[0] * 1.5,) if isinstance(out, tuple) else out * 1.5)
    tax, _found, closure = both(pair, some, "plain")
    handle.remove()
    assert closure.tax["nll"] == pytest.approx(tax.tax["nll"], abs=2e-5)
    assert abs(closure.prompt_and_config["nll"]) > 1e-3
    assert "more than their weights" in closure.reason["nll"]


def test_longrope_scores_a_short_row_beside_a_long_one_as_alone():
    """M8: positions that depend on the longest row of a batch."""
    pair, some = pair_of(base=tokenizer(), aligned=tokenizer(), layout="phi3", configs=(PHI, PHI)), suite(9, long=True)
    tax, found, closure = both(pair, some, "plain")
    base = pair.base.model
    rows = as_asked(pair, pair.base, "plain").rows(some)
    assert {len(row.ids) > 41 for row in rows} == {True, False}
    alone = []
    for row in rows:
        with torch.no_grad():
            logp = base(torch.tensor([row.ids[:-1]]), use_cache=False).logits[0].double().log_softmax(-1)
        alone.append(sum(float(logp[p - 1, row.ids[p]]) for p in range(row.start, len(row.ids))))
    scored = measure_tax(pair, some, templates=("plain",), metrics=METRICS, bootstrap=50).scores[0][0]
    assert scored.logp.ravel() == pytest.approx(np.array(alone), abs=1e-4)
    assert found.closed
    assert closure.tax["nll"] == pytest.approx(tax.tax["nll"], abs=2e-5)


def test_some_items_are_measured_on_those_items():
    template, made, _ = CASES["H6: two chat templates"]
    pair, some = pair_of(**made), suite()
    _, found, closure = both(pair, some, template, items=5)
    few = at_most(some, 5)
    assert found.suites["facts"].items == tuple(item.id for item in few.items)
    tax = measure_tax(pair, few, templates=(template,), metrics=METRICS, bootstrap=50).to_frame().set_index("metric")
    assert len(few) == 5
    for metric in METRICS:
        assert closure.tax[metric] == pytest.approx(tax.tax[metric], abs=2e-5)


def test_shards_and_segments_keep_the_row(monkeypatch):
    template, made, _ = CASES["H6: two chat templates"]
    pair, some = pair_of(**made), suite()
    _, _, whole = both(pair, some, template)
    monkeypatch.setattr("taxlens.analysis.path.engine.MEMORY", 1)
    _, _, cut = both(pair, some, template)
    assert cut.prompt_and_config.to_numpy() == pytest.approx(whole.prompt_and_config.to_numpy(), abs=1e-5)
    line = attribute_polyline(
        [pair.base, pair.aligned], some, template=template, metrics=METRICS, bootstrap=50, perplexity=False
    )
    joined = line.whole().closure_frame().set_index("metric")
    assert joined.prompt_and_config.to_numpy() == pytest.approx(whole.prompt_and_config.to_numpy(), abs=1e-5)


def test_swaps_state_the_measured_tax_too():
    template, made, _ = CASES["H6: two chat templates"]
    pair, some = pair_of(**made), suite()
    tax, found, closure = both(pair, some, template)
    swapped = swap_tables(pair, [some], found, template=template, methods=("restore",), bootstrap=50)["closure"]
    for metric in METRICS:
        row = swapped.set_index("metric").loc[metric]
        assert row.tax == pytest.approx(tax.tax[metric], abs=2e-5)
        assert row.prompt_and_config == pytest.approx(closure.prompt_and_config[metric], abs=2e-5)
        assert row.attributed + row.prompt_and_config + row.residual == pytest.approx(row.tax)


def test_both_models_are_asked_in_rows_that_both_have_embeddings_for():
    wide = pair_of(base=tokenizer(), aligned=tokenizer(chat=CHAT, extra=("<|user|>", "<|assistant|>")))
    assert one_prompting(wide, suite(), "chat").tokenizer is wide.aligned.tokenizer
    narrow = pair_of(base=tokenizer(), aligned=tokenizer(chat=CHAT, extra=[f"<|{n}|>" for n in range(6)]), configs=(
        {"vocab_size": 261}, {"vocab_size": 261}))  # fmt: skip
    assert one_prompting(narrow, suite(), "chat").tokenizer is narrow.aligned.tokenizer
    chat = CHAT.replace("<|user|>", "<|5|>")
    lacking = pair_of(base=tokenizer(), aligned=tokenizer(chat=chat, extra=[f"<|{n}|>" for n in range(6)]), configs=(
        {"vocab_size": 261}, {"vocab_size": 261}))  # fmt: skip
    assert one_prompting(lacking, suite(), "chat").tokenizer is lacking.base.tokenizer
    assert max(max(row.ids) for row in one_prompting(lacking, suite(), "chat").rows(suite())) < 261


def test_what_two_prompts_differ_in_is_named():
    same = pair_of(base=tokenizer(chat=CHAT), aligned=tokenizer(chat=CHAT))
    assert asked_apart(same, suite(), "chat") == ()
    other = pair_of(base=tokenizer(chat=OTHER), aligned=tokenizer(chat=CHAT))
    assert asked_apart(other, suite(), "chat") == ("chat template",)
    assert asked_apart(other, suite(), "plain") == ()


def test_dynamic_rope_reads_past_its_config_and_forgets_longer_batches():
    """M9: positions that stretch with the longest sequence seen; each row must be scored as a fresh model would alone."""
    dynamic = {
        "max_position_embeddings": 24,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    }
    pair, some = pair_of(base=tokenizer(), aligned=tokenizer(), configs=(dynamic, dynamic)), suite(9, long=True)
    rows = as_asked(pair, pair.base, "plain").rows(some)
    assert max(len(row.ids) for row in rows) > 25
    alone = []
    for row in rows:
        fresh = copy.deepcopy(pair.base.model)
        fresh.model.rotary_emb = type(fresh.model.rotary_emb)(fresh.config)
        with torch.no_grad():
            logp = fresh(torch.tensor([row.ids[:-1]]), use_cache=False).logits[0].double().log_softmax(-1)
        alone.append(sum(float(logp[p - 1, row.ids[p]]) for p in range(row.start, len(row.ids))))
    tax, found, closure = both(pair, some, "plain")
    scored = measure_tax(pair, some, templates=("plain",), metrics=METRICS, bootstrap=50).scores[0][0]
    assert scored.logp.ravel() == pytest.approx(np.array(alone), abs=1e-4)
    assert APART not in set(found.to_frame().component)
    assert closure.tax["nll"] == pytest.approx(tax.tax["nll"], abs=2e-5)
