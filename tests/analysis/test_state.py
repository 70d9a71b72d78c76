"""Verdicts follow their rules and precedence; upper halves, rotations and steerings do what the evidence rests on."""

import numpy as np
import pytest
import torch

from taxlens.activations.loading import LoadedModel
from taxlens.activations.pair import make_pair
from taxlens.analysis.diagnoses import diagnose_suites
from taxlens.analysis.evidence import rotation
from taxlens.analysis.halves import Half, lay_out
from taxlens.analysis.mixture import same_weights, untouched
from taxlens.analysis.relearn import shuffled_answers
from taxlens.analysis.state import diagnose
from taxlens.analysis.steering import Ablation, Steering, fit_steering
from taxlens.analysis.verdict import KEPT_RULES, Evidence, judge
from taxlens.core.errors import ItemError, StoreError, UsageError


def seen(**values):
    """Evidence with tight intervals; `random` is the control of Z16."""
    rows = [Evidence(name, value, value - 0.02, value + 0.02) for name, value in values.items() if name != "random"]
    return [*rows, Evidence("Z16", *[values.get("random", 0.0)] * 3, control="random")]


PLANTS = {
    "intact": {"D": 1.0, "X": 1.0, "S": 1.0, "I": 0.0, "Z1": 0.0, "Z4": 0.0, "Z16": 0.0, "gain": 1.0},
    "suppressed": {"D": 1.0, "X": 0.95, "S": 0.9, "I": 1.0, "Z1": 0.98, "Z4": 0.98, "Z16": 0.98, "gain": 1.0},
    "rotated": {"D": 0.97, "X": 0.03, "S": 1.0, "I": 1.0, "Z1": 0.02, "Z4": 0.1, "Z16": 0.6, "gain": 1.0},
    "attenuated": {"D": 0.97, "X": 0.9, "S": 0.5, "I": 1.0, "Z1": 0.1, "Z4": 0.3, "Z16": 0.7, "gain": 0.4},
    "erased": {"D": 0.0, "X": 0.0, "S": 0.1, "I": 1.0, "Z1": 0.05, "Z4": 0.05, "Z16": 0.05, "gain": 0.1, "Q": 0.0},
}


@pytest.mark.parametrize("state", PLANTS)
def test_what_each_plant_shows_is_called_by_its_name(state):
    verdict = judge(seen(**PLANTS[state]))
    assert verdict.state == state
    assert "rule:" in verdict.reason


def test_nothing_is_called_erased_without_relearning():
    verdict = judge(seen(**{k: v for k, v in PLANTS["erased"].items() if k != "Q"}))
    assert verdict.state == "undetermined"
    assert "Q <= 0.3: not run" in verdict.reason


def test_what_relearning_brings_back_is_not_erased():
    assert judge(seen(**(PLANTS["erased"] | {"Q": 0.8}))).state == "undetermined"


def test_a_steering_that_random_directions_equal_proves_nothing():
    assert judge(seen(**PLANTS["suppressed"], random=0.7)).state == "undetermined"


def test_an_interval_that_does_not_clear_the_threshold_decides_nothing():
    wide = [one for one in seen(**PLANTS["suppressed"]) if one.statistic != "D"] + [Evidence("D", 1.0, 0.5, 1.5)]
    verdict = judge(wide)
    assert verdict.state == "undetermined"
    assert "D >= 0.8: D 1.00 [0.50, 1.50]" in verdict.reason


def test_a_kept_capability_whose_sites_moved_is_rerouted():
    moved = [Evidence("M", 0, -0.1, 0.1), Evidence("U least", 0.1, 0.0, 0.2), Evidence("U most", 2.0, 1.7, 2.4)]
    assert judge(moved, KEPT_RULES).state == "rerouted"
    assert judge(moved[:1], KEPT_RULES).state == "intact"


@pytest.mark.parametrize("layout", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_an_upper_half_on_its_own_stream_gives_the_models_scores(layout, make_model, word_tokenizer, word_suite):
    def loaded(seed):
        model = make_model(layout, seed)
        return LoadedModel(model, word_tokenizer, "x", "x", None, torch.device("cpu"), "float32")

    pair = make_pair(loaded(0), loaded(1))
    table = lay_out(pair, word_suite.subset(range(8)), batch_tokens=64)
    half = Half(pair.aligned, table)
    half.read([0, 1])
    kept = untouched(pair.aligned.model)
    for layer in (0, 1):
        again = half.above(layer, lambda batch, layer=layer: half.streams[layer][batch])
        assert np.allclose(again, half.logp, atol=1e-5, equal_nan=True)
        moved = half.above(layer, lambda batch, layer=layer: half.streams[layer][batch].flip(-1))
        assert not np.allclose(moved, half.logp, atol=1e-2, equal_nan=True)
    assert same_weights(pair.aligned.model, kept)
    half.logp = np.empty((0, 0))
    half.read([])
    assert np.allclose(again, half.logp, atol=1e-5, equal_nan=True)


def test_a_rotation_is_found_and_what_rows_do_not_show_is_left_alone():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    x = np.hstack([rng.normal(size=(200, 4)), np.zeros((200, 3))])
    y = x.copy()
    y[:, :4] = x[:, :4] @ turn + 2.0
    found, x_mean, y_mean = rotation(x, y)
    assert np.allclose((x - x_mean) @ found + y_mean, y, atol=0.15)
    assert np.allclose(found[4:, 4:], np.eye(3), atol=1e-6)
    assert np.allclose(found @ found.T, np.eye(7))


def test_rank_one_is_the_mean_difference_and_more_ranks_fit_more():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6))
    target = x + np.arange(6.0) + x @ rng.normal(size=(6, 2)) @ rng.normal(size=(2, 6))
    left = []
    for rank in (1, 2, 3):
        steering = fit_steering(x, target, rank=rank, layer=0, penalty=1e-9)
        assert steering.rank == rank
        left.append(float((steering.apply(torch.tensor(x)) - torch.tensor(target)).square().sum()))
    assert np.allclose(fit_steering(x, target, rank=1, layer=0).shift, (target - x).mean(axis=0))
    assert left[0] > left[1] > left[2]
    assert left[2] < 1e-6


def test_a_random_control_has_the_same_rank_and_norms():
    rng = np.random.default_rng(1)
    steering = fit_steering(rng.normal(size=(50, 6)), rng.normal(size=(50, 6)), rank=3, layer=2)
    control = steering.random(0)
    assert control.rank == 3
    for name in ("shift", "read", "write"):
        assert np.linalg.norm(getattr(control, name)) == pytest.approx(np.linalg.norm(getattr(steering, name)))
    assert abs(control.shift @ steering.shift) < 0.99 * np.square(steering.shift).sum()


def test_a_steering_file_gives_the_steering_back(tmp_path, refusal_pair):
    rng = np.random.default_rng(1)
    steering = fit_steering(rng.normal(size=(50, 32)), rng.normal(size=(50, 32)), rank=3, layer=1)
    steering.measured["returned"] = 0.5
    again = Steering.load(steering.save(tmp_path / "facts.safetensors"))
    x = torch.tensor(rng.normal(size=(4, 32)))
    assert torch.allclose(again.apply(x), steering.apply(x))
    assert (again.layer, again.measured) == (1, {"returned": 0.5})
    ids = torch.tensor([[3, 4, 5]])
    plain = refusal_pair.aligned.model(ids).logits
    with again.on(refusal_pair.aligned) as model:
        assert not torch.equal(model(ids).logits, plain)
    assert torch.equal(refusal_pair.aligned.model(ids).logits, plain)


def test_a_foreign_file_is_no_steering(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"12345678")
    with pytest.raises(StoreError, match="no steering file"):
        Steering.load(tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="not found"):
        Steering.load(tmp_path / "y.safetensors")


def test_an_ablated_direction_is_gone_and_the_rest_stays():
    ablation = Ablation(0, np.eye(4)[:1], np.zeros(4))
    assert ablation.apply(torch.ones(2, 4)).tolist() == [[0, 1, 1, 1]] * 2


def test_shuffled_answers_keep_prompts_and_deal_answers_out(refusal_suites):
    facts = refusal_suites[0]
    dealt = shuffled_answers(facts, seed=0)
    assert [i.prompt for i in dealt.items] == [i.prompt for i in facts.items]
    golds = [sorted(i.choices[i.gold] for i in suite.items) for suite in (facts, dealt)]
    assert golds[0] == golds[1]
    assert sum(a.choices[a.gold] == b.choices[b.gold] for a, b in zip(facts.items, dealt.items)) < len(facts)


def test_diagnosis_has_the_tables_of_the_contract_and_leaves_no_trace(refusal_pair, refusal_suites):
    facts, sums = refusal_suites[:2]
    kept = [untouched(m.model) for m in (refusal_pair.base, refusal_pair.aligned)]
    template = {"facts": "plain", "sums": "plain"}
    found = diagnose_suites(refusal_pair, [facts, sums], template=template, relearn="always", draws=50)
    states, evidence = found.to_frame(), found.evidence_frame()
    assert list(states.columns) == ["suite", "template", "site", "layer", "state", "tax_share", "reason"]
    assert {"I", "S", "Z1", "Z4", "Z16", "Q"} <= set(evidence[evidence.suite == "facts"].statistic)
    assert {"", "random", "other suite", "shuffled"} <= set(evidence.control)
    overall = states[states.layer.isna()].set_index("suite").state
    assert overall["facts"] != "intact"
    assert overall["sums"] in ("intact", "undetermined")
    assert "erased" not in set(states[states.suite == "facts"].state)
    last = evidence[(evidence.suite == "facts") & (evidence.layer == 1) & (evidence.statistic == "I")]
    assert last.value.iloc[0] == pytest.approx(1.0)
    assert all(same_weights(m.model, k) for m, k in zip((refusal_pair.base, refusal_pair.aligned), kept))


def test_too_few_items_cannot_be_diagnosed(refusal_pair, refusal_suites):
    with pytest.raises(ItemError, match="too few items or groups to diagnose"):
        diagnose(refusal_pair, refusal_suites[0].subset(range(8)))


def test_a_layer_out_of_range_is_refused(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="out of range"):
        diagnose(refusal_pair, refusal_suites[0], layers=[7])
