"""Weights between two checkpoints: exact at both ends, exact afterwards, additive over units of every level."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from taxlens.activations.models.anatomy import anatomy
from taxlens.analysis.weights.interpolation import grafted, mixture
from taxlens.analysis.weights.units import Difference
from taxlens.core.errors import UsageError
from tests.kept_weights import same_weights, untouched

SIZES = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24}
DEPTH = {"num_hidden_layers": 2, "num_attention_heads": 4, "attn_implementation": "eager"}


def llama(**more):
    config = LlamaConfig(**SIZES, **DEPTH, num_key_value_heads=2, **more)
    return LlamaForCausalLM(config)


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=4, n_positions=16, attn_implementation="eager")
    )


def neox():
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **DEPTH, tie_word_embeddings=False))


MAKERS = {
    "llama": llama,
    "llama tied": lambda: llama(tie_word_embeddings=True),
    "llama biased": lambda: llama(attention_bias=True, mlp_bias=True),
    "gpt2": gpt2,
    "gpt_neox": neox,
}


class Loaded:
    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.anatomy = anatomy(model)


class Pair:
    def __init__(self, make, scale=0.1):
        torch.manual_seed(0)
        base = make()
        aligned = make()
        aligned.load_state_dict(base.state_dict())
        with torch.no_grad():
            for p in aligned.parameters():
                p.add_(scale * torch.randn_like(p))
        self.base, self.aligned = Loaded(base), Loaded(aligned)


@pytest.fixture(params=MAKERS)
def pair(request):
    return Pair(MAKERS[request.param])


IDS = torch.tensor([[1, 5, 9, 2, 7]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("level", ["component", "head", "neuron", "singular"])
def test_undoing_every_unit_of_a_level_gives_the_base(pair, level):
    units = Difference(pair).units(level)
    with mixture(pair, dict.fromkeys(units, 1.0)) as model:
        assert torch.allclose(logits(model), logits(pair.base.model), atol=2e-5)


@pytest.mark.parametrize("level", ["component", "head", "neuron", "singular"])
def test_grafting_every_unit_of_a_level_gives_the_aligned_model(pair, level):
    units = Difference(pair).units(level)
    with grafted(pair, dict.fromkeys(units, 1.0)) as model:
        assert torch.allclose(logits(model), logits(pair.aligned.model), atol=2e-5)


def test_undoing_every_component_gives_the_base_to_the_last_bit(pair):
    with mixture(pair, dict.fromkeys(Difference(pair).units("component"), 1.0)) as model:
        assert torch.equal(logits(model), logits(pair.base.model))


def test_weights_come_back_bit_for_bit_even_after_an_error(pair):
    difference = Difference(pair)
    kept, before = untouched(pair.aligned.model), logits(pair.aligned.model)
    for level in ("component", "head", "singular"):
        names = list(difference.units(level))[:3]
        with mixture(pair, dict.fromkeys(names, 0.7)) as model:
            assert not torch.equal(logits(model), before)
        with pytest.raises(ZeroDivisionError), mixture(pair, dict.fromkeys(names, 0.7)):
            raise ZeroDivisionError
    assert same_weights(pair.aligned.model, kept)
    assert torch.equal(logits(pair.aligned.model), before)


def test_tied_embeddings_are_tied_again_and_each_use_is_undone_alone():
    pair = Pair(MAKERS["llama tied"])
    model = pair.aligned.model
    with mixture(pair, {"unembed": 1.0}):
        assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
        assert torch.equal(model.lm_head.weight, pair.base.model.lm_head.weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_half_of_a_unit_lies_half_way(pair):
    weight = "1.mlp"
    role = pair.aligned.anatomy.role("down", 1).name
    with mixture(pair, {weight: 0.5}) as model:
        half = model.get_submodule(role).weight.clone()
    ends = [m.model.get_submodule(role).weight for m in (pair.base, pair.aligned)]
    assert torch.allclose(half, (ends[0] + ends[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("level", ["head", "neuron", "singular"])
def test_units_of_a_component_sum_to_it(pair, level):
    difference = Difference(pair)
    for name, whole in difference.units("component").items():
        parts = [u for u in difference.units(level).values() if u.component == name]
        energy = sum(difference.energy(u.name, level=level) for u in parts)
        assert energy == pytest.approx(difference.energy(whole.name), rel=1e-4)


def test_a_head_touches_its_own_rows_and_columns_only():
    pair = Pair(MAKERS["llama"])
    kept = untouched(pair.aligned.model)
    with mixture(pair, {"0.attn.h1": 1.0}) as model:
        attention = model.model.layers[0].self_attn
        moved = {n: p != kept[f"model.layers.0.self_attn.{n}"] for n, p in attention.named_parameters()}
        others = [
            n for n, p in model.named_parameters() if "layers.0.self_attn" not in n and not torch.equal(p, kept[n])
        ]
    assert moved["q_proj.weight"].any(1).nonzero().flatten().tolist() == [4, 5, 6, 7]
    assert moved["o_proj.weight"].any(0).nonzero().flatten().tolist() == [4, 5, 6, 7]
    assert not moved["k_proj.weight"].any()
    assert others == []


def test_grouped_keys_and_values_are_units_of_their_own_where_heads_share_them():
    names = Difference(Pair(MAKERS["llama"])).units("head")
    assert {"0.attn.h3", "0.attn.kv1"} <= set(names)
    assert "0.attn.kv2" not in names
    assert not any(".kv" in name for name in Difference(Pair(MAKERS["gpt2"])).units("head"))


def test_a_low_rank_change_has_as_many_singular_units_as_its_rank():
    pair = Pair(MAKERS["llama"], scale=0.0)
    with torch.no_grad():
        weight = pair.aligned.model.model.layers[1].mlp.down_proj.weight
        weight.add_(torch.randn(16, 2) @ torch.randn(2, 24))
    units = [n for n in Difference(pair).units("singular") if ".s" in n]
    assert units == ["1.mlp.down.s0", "1.mlp.down.s1"]


def test_an_unknown_unit_is_answered_with_the_nearest(pair):
    with pytest.raises(UsageError, match="no unit '1.mpl'"), mixture(pair, {"1.mpl": 1.0}):
        pass


def test_a_coefficient_that_is_not_finite_is_refused(pair):
    with pytest.raises(UsageError, match="finite"), mixture(pair, {"1.mlp": float("nan")}):
        pass


def test_a_mixture_inside_another_is_refused(pair):
    with mixture(pair, {"1.mlp": 1.0}), pytest.raises(UsageError, match="open already"), mixture(pair, {"0.mlp": 1.0}):
        pass


def test_undoing_nothing_changes_nothing(pair):
    with mixture(pair, {"1.mlp": 0.0}) as model:
        assert torch.equal(logits(model), logits(pair.aligned.model))


def test_the_difference_is_the_checkpoints_while_a_mixture_is_open(pair):
    difference = Difference(pair)
    role = pair.aligned.anatomy.role("down", 1).name
    before = difference.change(role, "weight")
    with mixture(pair, {"1.mlp": 0.5}, difference=difference):
        assert torch.equal(difference.change(role, "weight"), before)
        assert torch.equal(Difference(pair).change(role, "weight"), before)
    assert torch.equal(difference.change(role, "weight"), before)
