"""One backward pass gives what forward-mode differentiation gives, component by component, in every family."""

import copy

import numpy as np
import pytest
import torch

from taxlens.activations.items.tokens import encode_suite
from taxlens.analysis.path import module_rules as rules
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import differentiate, score_shard, shard_of
from taxlens.analysis.path.shard_walk import checkpointed
from taxlens.analysis.scoring.choices import score_rows
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import component_name, difference_of

T = 0.37
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "mixtral",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "phi3",
    "gpt_neox",
    "gpt2",
)


@pytest.fixture
def exact(monkeypatch):
    """Norms and softmax in float64, where Hugging Face casts them to float32."""
    to, wide, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def stay(self, *args, **kwargs):
        down = args[:1] == (torch.float32,) or kwargs.get("dtype") == torch.float32
        return self if down and self.dtype == torch.float64 else to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", stay)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else wide(self))
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim=None, _stacklevel=3, dtype=None: softmax(x, dim=dim)
    )


def tallied(pair, suite, levels=("component",), t=T, batch_tokens=64, checkpoint=False):
    rows = encode_suite(suite, pair.base.tokenizer)
    shard = shard_of(pair.base, rows, batch_tokens=batch_tokens)
    difference = difference_of(pair)
    with walk(pair) as path:
        contraction = Contraction(path.model, difference, levels)
        with contraction, checkpointed(path.model, checkpoint):
            tally, scores = differentiate(path.to(t), shard, contraction)
    return contraction, tally, scores, rows, shard


def forward_mode(pair, rows, t=T):
    """d score / dt by component [rows, components], one jvp each; tied embeddings taken apart."""
    model = copy.deepcopy(pair.base.model)
    if pair.base.anatomy.tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
    ends = [dict(m.model.named_parameters(remove_duplicate=False)) for m in (pair.base, pair.aligned)]
    owner = {
        f"{role.name}.{p}": component_name(role)
        for role in pair.base.anatomy.modules
        for p in difference_of(pair).parameters(role.name)
    }
    theta = {name: ends[0][name].detach() + t * (ends[1][name] - ends[0][name]).detach() for name in owner}

    def scores(weights):
        out = []
        for row in rows:
            ids = torch.tensor([row.ids])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            logits = torch.func.functional_call(model, weights, args=(), kwargs=inputs).logits[0].double()
            logp = logits.log_softmax(-1)
            out.append(sum(logp[i - 1, row.ids[i]] for i in range(row.start, len(row.ids))))
        return torch.stack(out)

    columns = []
    for component in difference_of(pair).units("component"):
        along = {name: (ends[1][name] - ends[0][name]) * (1.0 if owner[name] == component else 0.0) for name in theta}
        columns.append(torch.func.jvp(scores, (theta,), (along,))[1].numpy())
    return np.stack(columns, axis=1)


def apart(found, wanted):
    """Largest error of any component, relative to that component's largest derivative."""
    return float((np.abs(found - wanted).max(axis=0) / np.abs(wanted).max(axis=0)).max())


def test_gradient_checkpointing_changes_nothing(build, words):
    pair, suite = build("llama"), words(3, single=True)
    _, wanted, *_ = tallied(pair, suite, ("component", "singular"))
    _, tally, *_ = tallied(pair, suite, ("component", "singular"), checkpoint=True)
    for level in ("component", "singular"):
        assert tally.units[level].numpy() == pytest.approx(wanted.units[level].numpy(), abs=1e-9)
    assert not any(module.training for module in pair.base.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_component_equals_forward_mode_differentiation(build, words, exact, family):
    pair = build(family)
    contraction, tally, _, rows, _ = tallied(pair, words(2))
    assert apart(tally.units["component"].numpy(), forward_mode(pair, rows)) < 1e-10
    forward = {"gate", "experts"} if family in ("mixtral", "qwen3_moe") else set()
    assert {name.rpartition(".")[2] for name in contraction.fallbacks} == forward


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_tied_embedding_is_counted_in_both_its_uses(build, words, exact, family):
    pair = build(family, tie_word_embeddings=True)
    assert pair.base.anatomy.tied
    _, tally, _, rows, _ = tallied(pair, words(2))
    wanted = forward_mode(pair, rows)
    assert apart(tally.units["component"].numpy(), wanted) < 1e-10
    names = list(difference_of(pair).units("component"))
    assert np.abs(wanted[:, names.index("embed")]).max() > 0
    assert np.abs(wanted[:, names.index("unembed")]).max() > 0


def test_as_hugging_face_ships_it_the_error_is_that_of_float32(build, words):
    pair = build("llama")
    _, tally, _, rows, _ = tallied(pair, words(2))
    assert apart(tally.units["component"].numpy(), forward_mode(pair, rows)) < 1e-5


def test_batching_and_shared_inputs_change_nothing(build, words):
    pair, suite = build("llama"), words(8, single=True)
    one = tallied(pair, suite, batch_tokens=10_000)
    many = tallied(pair, suite, batch_tokens=12)
    assert len(one[4].bundles) < len(many[4].bundles)
    assert max(len(b.lanes) for b in one[4].bundles) > 1
    assert one[1].units["component"].numpy() == pytest.approx(many[1].units["component"].numpy(), rel=1e-5, abs=1e-6)
    assert one[2] == pytest.approx(many[2], abs=1e-5)


def test_scores_are_those_of_scoring(build, words):
    pair, suite = build("gemma2"), words(6)
    rows = encode_suite(suite, pair.base.tokenizer)
    shard = shard_of(pair.base, rows, batch_tokens=64)
    assert score_shard(pair.base.model, shard) == pytest.approx(score_rows(pair.base.model, rows).logp, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3", "qwen3"])
def test_units_of_every_level_sum_to_their_component(build, words, family):
    pair = build(family)
    levels = ("component", "head", "neuron", "singular")
    contraction, tally, *_ = tallied(pair, words(4), levels)
    whole = tally.units["component"].numpy()
    components = contraction.layout.names["component"]
    for level in levels[1:]:
        summed = np.zeros_like(whole)
        for column, unit in enumerate(contraction.difference.units(level).values()):
            summed[:, components.index(unit.component)] += tally.units[level][:, column].numpy()
        assert summed == pytest.approx(whole, abs=1e-8)


def test_tokens_sum_to_their_row(build, words):
    _, tally, _, _, shard = tallied(build("qwen2"), words(4))
    summed = np.add.reduceat(tally.tokens.numpy(), shard.offsets[:-1], axis=0)
    assert summed == pytest.approx(tally.units["component"].numpy(), abs=1e-10)


def test_a_head_is_what_grafting_its_slices_changes(build, words, exact):
    """The derivative along one head's own slices of q and o, by finite differences of the weights."""
    pair, suite = build("llama"), words(3)
    contraction, tally, _, _rows, shard = tallied(pair, suite, ("component", "head"), t=0.0)
    column = contraction.layout.names["head"].index("1.attn.h2")
    model = copy.deepcopy(pair.base.model)
    step, slices = 1e-6, slice(16, 24)
    for name, part in (("q_proj", (slices,)), ("o_proj", (slice(None), slices))):
        weights = [m.model.model.layers[1].self_attn.get_submodule(name).weight for m in (pair.base, pair.aligned)]
        target = model.model.layers[1].self_attn.get_submodule(name).weight
        target.data[part] += step * (weights[1] - weights[0])[part]
    rise = (score_shard(model, shard) - score_shard(pair.base.model, shard)) / step
    assert tally.units["head"][:, column].numpy() == pytest.approx(rise, rel=1e-3, abs=1e-4)


def test_low_rank_changes_are_contracted_through_their_factors(build, words):
    pair = build("llama", change=lambda name: 0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in pair.aligned.model.model.layers:
            weight = layer.mlp.down_proj.weight
            weight += 0.1 * torch.randn(32, 2, dtype=weight.dtype) @ torch.randn(2, 48, dtype=weight.dtype)
    difference = difference_of(pair)
    contraction, tally, _, rows, _ = tallied(pair, words(3), ("component", "singular"))
    assert difference.low_rank("model.layers.0.mlp.down_proj")
    assert [n for n in contraction.layout.names["singular"] if "down" in n] == [
        f"{layer}.mlp.down.s{k}" for layer in (0, 1) for k in (0, 1)
    ]
    names = contraction.layout.names["component"]
    wanted = forward_mode(pair, rows)
    for name in ("0.mlp", "1.mlp"):
        column = names.index(name)
        assert tally.units["component"][:, column].numpy() == pytest.approx(wanted[:, column], rel=1e-5, abs=1e-6)


def test_an_unchanged_component_is_exactly_zero_and_has_no_hook(build, words):
    pair = build("llama", change=lambda name: 1.0 if "layers.0.mlp" in name else 0.0)
    contraction, tally, *_ = tallied(pair, words(3))
    names = contraction.layout.names["component"]
    assert {rule.name.split(".")[3] for rule in contraction.rules} == {"mlp"}
    for column, name in enumerate(names):
        assert bool((tally.units["component"][:, column] == 0).all()) == (name != "0.mlp")


def test_a_module_without_a_rule_is_differentiated_forward_and_named(build, words, monkeypatch):
    pair = build("llama")
    _, wanted, *_ = tallied(pair, words(3))
    monkeypatch.setattr(rules, "is_norm", lambda module: False)
    contraction, tally, *_ = tallied(pair, words(3))
    assert "model.norm" in contraction.fallbacks
    assert tally.units["component"].numpy() == pytest.approx(wanted.units["component"].numpy(), rel=1e-5, abs=1e-6)


def test_heads_before_tokens_are_told_apart_also_where_their_numbers_agree():
    x = torch.zeros(2, 4, 4, 8)
    assert not rules.heads_first(x, 4)
    assert rules.heads_first(x.transpose(1, 2), 4)
    assert rules.heads_first(torch.zeros(2, 4, 7, 8), 4)
    assert not rules.heads_first(torch.zeros(2, 7, 4, 8), 4)


def test_weights_come_back_to_the_bit_also_after_an_error(build):
    pair = build("llama", dtype=torch.float32)
    kept = [p.detach().clone() for m in (pair.base, pair.aligned) for p in m.model.parameters()]
    with pytest.raises(RuntimeError, match="stop"), walk(pair) as path:
        path.to(0.3)
        raise RuntimeError("stop")
    now = [p for m in (pair.base, pair.aligned) for p in m.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now))


def test_the_walk_ends_are_the_pair_itself_to_the_bit(build):
    pair = build("llama", dtype=torch.float32)
    wanted = [p.detach().clone() for p in pair.aligned.model.parameters()]
    with walk(pair) as path:
        assert all(torch.equal(a, b) for a, b in zip(wanted, path.to(1.0).parameters()))


def test_experts_and_their_router_are_differentiated_forward_and_rest_at_finer_levels(build, words):
    pair = build("mixtral")
    contraction, tally, *_ = tallied(pair, words(3), ("component", "neuron", "singular"))
    assert {name.rpartition(".")[2] for name in contraction.fallbacks} == {"gate", "experts"}
    names = contraction.layout.names
    for level in ("neuron", "singular"):
        assert [name for name in names[level] if ".mlp" in name] == ["0.mlp.rest", "1.mlp.rest"]
        for layer in (0, 1):
            rest = tally.units[level][:, names[level].index(f"{layer}.mlp.rest")]
            whole = tally.units["component"][:, names["component"].index(f"{layer}.mlp")]
            assert rest.numpy() == pytest.approx(whole.numpy(), abs=1e-9)
