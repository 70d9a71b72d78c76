"""Mixtures of experts: the account closes with a row for which experts are chosen, and says why where it cannot."""

import numpy as np
import pytest
import torch

from taxlens.analysis.frontier.plans import changed_units
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.beyond.expert_selection import Router
from taxlens.analysis.weights.units import difference_of
from tests.kept_weights import same_weights, untouched

pytestmark = pytest.mark.filterwarnings("ignore")
MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN3 = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "decoder_sparse_step": 1,
    "head_dim": 8,
}
SHARED = QWEN3 | {"num_experts": 8, "shared_expert_intermediate_size": 24}
KINDS = {
    "mixtral": ("mixtral", MIXTRAL), "qwen3_moe": ("qwen3_moe", QWEN3), "shared expert": ("qwen2_moe", SHARED),
    "gpt_oss": ("gpt_oss", QWEN3 | {"num_local_experts": 4}), "olmoe": ("olmoe", QWEN3),
    "grouped choice": ("deepseek_v3", QWEN3 | {
        "n_routed_experts": 8, "num_local_experts": 8, "first_k_dense_replace": 0, "n_group": 4, "topk_group": 2,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_nope_head_dim": 8,
        "num_key_value_heads": 4,
    }),
    "a threshold": ("phimoe", MIXTRAL | {"router_jitter_noise": 0.2}),
    "one expert": ("llama4_text", {
        "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48,
        "interleave_moe_layer_step": 1, "attention_chunk_size": 64,
    }),
}  # fmt: skip
QUICK = ("mixtral", "shared expert", "one expert", "a threshold")


def pair_of(replicas, kind, *, amount=0.03, layers=2):
    name, config = KINDS[kind]
    config = config | {"num_hidden_layers": layers}
    base, aligned = replicas.model(name, **config), replicas.drift(replicas.model(name, **config), amount)
    if name == "deepseek_v3":
        with torch.no_grad():  # the correction of the choice is a buffer, and training moves it
            for n, model in enumerate((base, aligned)):
                for layer in model.model.layers:
                    layer.mlp.gate.e_score_correction_bias += 0.05 * n * torch.arange(8)
    return replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS])
def test_the_account_of_experts_closes_within_fifteen_gradients(replicas, kind):
    pair, suite = pair_of(replicas, kind), replicas.suite(4)
    kept = untouched(pair.base.model)
    found = pair.attribute(suite, metrics=("accuracy", "probability", "nll"), bootstrap=100)
    closure = found.closure_frame().set_index("metric")
    assert found.closed, closure.reason
    assert (closure.gradients <= 15).all()
    assert closure.worst_item["probability"] <= 1e-3
    assert (closure.residual.abs() <= 0.01 * closure.tax.abs() + 2e-4).all()
    names, values = found.effects("facts", "nll")
    rows = [n for n in names if n.endswith(".selection")]
    assert rows == ["0.selection", "1.selection"]
    assert np.abs(values[:, names.index("0.selection")]).max() > 1e-5
    frame = found.to_frame()
    assert set(frame[frame.component.isin(rows)].kind) == {"selection"}
    measured = pair.tax(suite, templates=("plain",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
    assert values.sum(axis=1).mean() == pytest.approx(measured, rel=0.01, abs=2e-4)
    assert same_weights(pair.base.model, kept)
    assert not any("forward" in vars(m) for m in pair.base.model.modules())


def test_a_walk_without_the_choice_says_at_once_why_it_cannot_close(replicas):
    pair, suite = pair_of(replicas, "mixtral", layers=3), replicas.suite(3)
    found = attribute(pair.models, suite, metrics=("nll",), levels=(), selection=False, bootstrap=100)
    closure = found.closure_frame().iloc[0]
    assert not found.closed
    assert closure.gradients <= 3
    assert "experts change along the path in" in closure.reason
    assert "more nodes cannot close this" in closure.reason
    joint = attribute(pair.models, suite, metrics=("nll",), levels=(), bootstrap=100)
    assert joint.closed
    assert abs(closure.residual) > 100 * abs(joint.closure_frame().residual.iloc[0])


def test_a_router_whose_choice_cannot_be_seen_stops_the_walk_at_once(replicas, monkeypatch):
    from taxlens.analysis.path.beyond import expert_selection as module

    monkeypatch.setattr(module, "_COMPARISONS", ())
    monkeypatch.setattr(module._Decisions, "_step", lambda self, found: found)
    pair, suite = pair_of(replicas, "a threshold"), replicas.suite(3)
    closure = pair.attribute(suite, metrics=("nll",), bootstrap=100).closure_frame().iloc[0]
    assert not closure.closed
    assert closure.gradients <= 3
    assert "experts change along the path in" in closure.reason


def test_exchanging_base_and_aligned_turns_every_sign(replicas):
    from taxlens.activations.models.pair import make_pair

    pair, suite = pair_of(replicas, "mixtral"), replicas.suite(2)
    there = pair.attribute(suite, metrics=("nll",), bootstrap=100).effects("facts", "nll")[1]
    back = attribute(make_pair(pair.aligned, pair.base), suite, metrics=("nll",), levels=(), bootstrap=100)
    assert back.effects("facts", "nll")[1] == pytest.approx(-there, abs=1e-5)


def test_the_choice_has_no_weights_and_stays_out_of_plans_and_grafts(replicas):
    pair = pair_of(replicas, "mixtral")
    difference = difference_of(pair.models)
    for level in ("component", "head", "neuron", "singular"):
        assert not any(name.endswith(".selection") for name in difference.units(level))
    assert not any(name.endswith(".selection") for name in changed_units(difference, "component").names)


def test_a_pair_that_chooses_alike_gives_the_choice_nothing(replicas):
    base, aligned = replicas.model("mixtral", **MIXTRAL), replicas.model("mixtral", **MIXTRAL)
    replicas.drift(aligned, 0.05, only="lm_head")
    pair = replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))
    names, values = pair.attribute(replicas.suite(2), metrics=("nll",), bootstrap=100).effects("facts", "nll")
    for name in ("0.selection", "1.selection"):
        assert (values[:, names.index(name)] == 0).all()
    assert values[:, names.index("unembed")].any()


def test_a_dense_model_has_no_such_row(replicas):
    base, aligned = replicas.model(), replicas.drift(replicas.model())
    pair = replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))
    names, _ = pair.attribute(replicas.suite(2), metrics=("nll",), bootstrap=100).effects("facts", "nll")
    assert not any("selection" in name for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_router_that_is_given_its_own_choice_gives_its_own_weights(replicas, kind):
    name, config = KINDS[kind]
    model = replicas.model(name, **config)
    from taxlens.activations.models.anatomy import anatomy

    role = next(r for r in anatomy(model).modules if r.role == "router")
    module = model.get_submodule(role.name)
    router = Router(0, module, module.forward)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    output, chosen = router.plain((x,), {})
    if (
        kind == "a threshold"
    ):  # the best, which are too far below it, the best of the others, which are too far below that
        assert chosen.shape == (5, 1 + 4 + 1 + 4)
        assert torch.equal(chosen[:, [0, 5]], output[2])
    else:
        assert chosen.shape == (5, config["num_experts_per_tok"])
    for one, two in zip(output, router.forced(chosen, (x,), {}), strict=True):
        assert torch.equal(one, two)
    other = chosen.roll(1, 0) if kind == "a threshold" else (chosen + 1) % len(module.weight)
    moved = router.forced(other, (x,), {})
    assert any(not torch.equal(one, two) for one, two in zip(output, moved, strict=True))


def test_recomputed_blocks_give_the_same_account(replicas):
    pair, suite = pair_of(replicas, "mixtral"), replicas.suite(2)
    one, two = (
        attribute(pair.models, suite, metrics=("nll",), levels=(), recompute=again, bootstrap=100)
        for again in (False, True)
    )
    assert two.effects("facts", "nll")[1] == pytest.approx(one.effects("facts", "nll")[1], abs=1e-6)


def test_a_small_trained_pair_closes_with_its_choice(replicas):
    """A mixture that has learned the items' answers, fine-tuned on other answers: its routers are no random ones."""
    base = replicas.model("mixtral", std=0.05, **MIXTRAL)
    suite, tokenizer = replicas.suite(6), replicas.tokenizer()

    def train(model, shift, steps, rate):
        optimiser = torch.optim.Adam(model.parameters(), lr=rate)
        for step in range(steps):
            item = suite.items[step % len(suite)]
            ids = torch.tensor([tokenizer.encode(item.prompt + item.choices[(item.gold + shift) % 3])])
            loss = model(input_ids=ids, labels=ids).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return model.eval()

    torch.manual_seed(0)
    one = replicas.save(train(base, 0, 60, 3e-3), "base")
    two = replicas.save(train(base, 1, 12, 1e-3), "aligned")
    found = replicas.pair(one, two).attribute(suite, metrics=("probability", "nll"), bootstrap=100)
    closure = found.closure_frame().set_index("metric")
    assert found.closed
    assert (closure.gradients <= 15).all()
    assert closure.worst_item["probability"] <= 1e-3
    assert closure.tax["nll"] > 0.05
