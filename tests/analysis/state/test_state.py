"""Verdicts follow their rules and precedence; upper halves, rotations and steerings do what the evidence rests on."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from taxlens.activations.hooks.paired_forward import replaced_output
from taxlens.activations.items.items import Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.analysis.frontier.front import Benefit
from taxlens.analysis.frontier.trained_plans import training
from taxlens.analysis.interventions.steering import Ablation, Steering, fit_steering
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.scoring.shared_prompt_table import lay_out
from taxlens.analysis.state.component_use import component_use
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.state.diagnoses import Diagnoses, diagnose_suites
from taxlens.analysis.state.evidence import Bench, labelled, rotation
from taxlens.analysis.state.relearning import relearned_share, shuffled_answers
from taxlens.analysis.state.state_tables import STEERING
from taxlens.analysis.state.steering_benefit import steered_benefit, steering_rows
from taxlens.analysis.state.upper_layers import Half
from taxlens.analysis.state.verdict import KEPT_RULES, Evidence, judge, judge_layers, placed_at
from taxlens.core.errors import ItemError, StoreError, UsageError
from tests.kept_weights import same_weights, untouched


def seen(**values):
    """Evidence with tight intervals; `random` is the control of Z16, `network` of D."""
    controls = {"random": "Z16", "network": "D"}
    rows = [Evidence(name, value, value - 0.02, value + 0.02) for name, value in values.items() if name not in controls]
    given = {"random": 0.0} | {name: value for name, value in values.items() if name in controls}
    return [*rows, *(Evidence(controls[name], value, value, value, control=name) for name, value in given.items())]


PLANTS = {
    "intact": {"D": 1.0, "X": 1.0, "S": 1.0, "I": 0.0, "Z1": 0.0, "Z4": 0.0, "Z16": 0.0, "gain": 1.0},
    "suppressed": {"D": 1.0, "X": 0.95, "S": 0.9, "I": 1.0, "Z1": 0.98, "Z4": 0.98, "Z16": 0.98, "gain": 1.0},
    "rotated": {"D": 0.97, "X": 0.03, "S": 1.0, "I": 1.0, "Z1": 0.02, "Z4": 0.1, "Z16": 0.6, "gain": 1.0},
    "attenuated": {"D": 0.97, "X": 0.9, "S": 0.5, "I": 1.0, "Z1": 0.1, "Z4": 0.3, "Z16": 0.7, "gain": 0.4},
    "erased": {
        "D": 0.0,
        "X": 0.0,
        "S": 0.1,
        "I": 1.0,
        "Z1": 0.05,
        "Z4": 0.05,
        "Z16": 0.05,
        "gain": 0.1,
        "Q": 0.0,
        "network": 0.0,
    },
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


def test_what_a_small_network_still_reads_is_not_erased():
    verdict = judge(seen(**(PLANTS["erased"] | {"network": 0.9})))
    assert verdict.state == "undetermined"
    assert "D (network) <= 0.4" in verdict.reason


def test_the_overall_verdict_is_that_of_the_first_damaged_layer_that_is_decided():
    found = {
        0: seen(**PLANTS["intact"]),
        1: seen(**(PLANTS["suppressed"] | {"Z1": 0.3, "Z4": 0.3, "Z16": 0.3})),
        2: seen(**PLANTS["suppressed"]),
        3: seen(**PLANTS["rotated"]),
        -1: [Evidence("M", 0.5, 0.4, 0.6)],
    }
    verdicts, where = judge_layers(found)
    assert [verdicts[n].state for n in range(4)] == ["intact", "undetermined", "suppressed", "rotated"]
    assert (verdicts[-1].state, where) == ("suppressed", 2)


def test_a_state_is_placed_at_the_first_layer_that_carries_all_that_is_lost_where_it_is_decided():
    unsure = seen(**(PLANTS["attenuated"] | {"D": 0.75}))
    found = {0: seen(**PLANTS["intact"]), 1: unsure, 2: unsure, 3: seen(**PLANTS["attenuated"])}
    verdicts, where = judge_layers(found)
    assert [verdicts[n].state for n in range(4)] == ["intact", "undetermined", "undetermined", "attenuated"]
    assert (verdicts[-1].state, where, placed_at(found, where)) == ("attenuated", 3, 1)
    assert "decided at layer 3, whose damage is all there at layer 1" in verdicts[-1].reason
    found[1] = seen(**(PLANTS["attenuated"] | {"D": 0.75, "I": 0.5}))  # half of the tax is lost after layer 1
    assert placed_at(found, 3) == 2


def test_damage_that_no_layer_carries_is_undetermined():
    verdicts, where = judge_layers({0: seen(**PLANTS["intact"]), 1: seen(**(PLANTS["suppressed"] | {"I": 0.2}))})
    assert verdicts[-1].state == "undetermined"
    assert "no layer's stream carries the damage" in verdicts[-1].reason
    assert where == 1


def test_evidence_of_every_layer_may_decide_each():
    found = {0: [e for e in seen(**PLANTS["erased"]) if e.statistic != "Q"]}
    assert judge_layers(found)[0][-1].state == "undetermined"
    assert judge_layers(found, more=[Evidence("Q", 0.0, 0.0, 0.0)])[0][-1].state == "erased"


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
    little = [*moved[:2], Evidence("U most", 1.26, 1.25, 1.28)]  # what planted pairs show
    assert judge(little, KEPT_RULES).state == "rerouted"
    assert judge([*moved[:2], Evidence("U most", 1.01, 1.0, 1.02)], KEPT_RULES).state == "intact"


@pytest.mark.parametrize("layout", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_an_upper_half_on_its_own_stream_gives_the_models_scores(layout, make_model, word_tokenizer, word_suite):
    def loaded(seed):
        model = make_model(layout, seed)
        return LoadedModel(model, word_tokenizer, "x", "x", None, torch.device("cpu"), "float32")

    pair = make_pair(loaded(0), loaded(1))
    some = word_suite.subset(range(8))
    table = lay_out(pair, some, batch_tokens=64)
    half = Half(pair.aligned, table)
    half.read([0, 1])
    plain = score_suite(pair.aligned.model, some, tokenizer=word_tokenizer, share_prefix=False)
    assert np.allclose(half.logp, plain.logp, atol=1e-4, equal_nan=True)
    apart = Half(pair.aligned, lay_out(pair, some, batch_tokens=64, share=False))
    apart.read([0, 1])
    assert not apart.table.shared
    assert np.allclose(half.logp, apart.logp, atol=1e-4, equal_nan=True)
    for label in ("correct", "answer"):
        found = [labelled(Bench(h, h, np.zeros(8), label), h, 1) for h in (half, apart)]
        assert np.allclose(found[0][0], found[1][0], atol=1e-4)
        assert (found[0][1] == found[1][1]).all()
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


def test_streams_that_are_all_alike_are_steered_by_their_mean_difference_alone():
    x, target = np.ones((6, 4)), np.arange(24.0).reshape(6, 4)
    steering = fit_steering(x, target, rank=3, layer=0)
    assert np.allclose(steering.shift, target.mean(axis=0) - 1.0)
    assert steering.read.shape == (0, 4)


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


def test_an_ablation_is_a_steering_that_can_be_kept(tmp_path):
    rng = np.random.default_rng(3)
    direction, centre, x = rng.normal(size=6), rng.normal(size=6), torch.tensor(rng.normal(size=(5, 6)))
    again = Steering.load(Steering.ablation(direction, centre, layer=1).save(tmp_path / "x.safetensors"))
    unit = direction / np.linalg.norm(direction)
    wanted = Ablation(1, unit[None], centre).apply(x)
    assert torch.allclose(again.apply(x), wanted)
    assert torch.allclose(
        again.apply(x) @ torch.tensor(unit), torch.full((5,), float(centre @ unit), dtype=torch.float64)
    )


def test_a_constant_push_by_hook_is_undone_by_a_vector_and_by_ablating_its_direction(refusal_pair, refusal_suites):
    base = refusal_pair.base
    pushed = copy.deepcopy(base.model)
    layer, facts = 0, refusal_suites[0]
    pair = make_pair(base, replace(base, model=pushed))

    def right(push):
        with replaced_output(pair.aligned.anatomy.blocks[layer], lambda stream: stream + push):
            return score_suite(pair.aligned, facts, share_prefix=False).metrics(("probability",))["probability"].mean()

    push = min(40 * torch.eye(32), key=right)  # the coordinate that hurts most
    with replaced_output(pair.aligned.anatomy.blocks[layer], lambda stream: stream + push):
        found = diagnose(pair, refusal_suites[0], draws=50, layers=[layer], relearn="never")
    assert found.tax[1] > 0
    assert found.value("Z1", layer) == pytest.approx(1, abs=0.1)
    assert found.value("A", layer) > 0.5 > found.value("A", layer, control="random")
    assert found.steering(rank=0).measured == {}
    names = Diagnoses((found,)).steerings()
    assert set(names) == {"facts", "facts-ablation"}
    assert names["facts-ablation"].measured["kind"] == "ablation"


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


def test_a_layer_below_the_damage_costs_one_look(refusal_pair, refusal_suites, monkeypatch):
    from taxlens.analysis.state import evidence

    asked = []
    monkeypatch.setattr(evidence, "inject", lambda bench, layer: Evidence("I", 0.0, -0.01, 0.01))
    monkeypatch.setattr(evidence, "mapped_base", lambda bench, layer: asked.append(layer))
    assert [one.statistic for one in evidence.layer_evidence(None, 3)] == ["I"]
    assert asked == []


def test_a_silenced_part_costs_both_models_alike_where_nothing_changed(refusal_pair, refusal_suites):
    pair = make_pair(refusal_pair.base, refusal_pair.base)
    table = lay_out(pair, refusal_suites[0])
    halves = [Half(pair.base, table), Half(pair.aligned, table)]
    for half in halves:
        half.read([])
    kept = untouched(pair.base.model)
    used = component_use(Bench(*halves, np.arange(len(table.items)) % 4, draws=50), [0, 1])
    found = [one for layer in used.values() for one in layer]
    assert found
    assert {one.statistic for one in found} <= {"U attn", "U mlp"}
    assert all(one.value <= 1 + 1e-9 for one in found)
    assert max(one.value for one in found) == pytest.approx(1)
    assert same_weights(pair.base.model, kept)


def test_a_tax_too_small_to_matter_is_none(refusal_pair, refusal_suites, monkeypatch):
    from taxlens.analysis.state import diagnose as state

    monkeypatch.setattr(state, "NEGLIGIBLE", 2.0)
    found = diagnose(refusal_pair, refusal_suites[0], draws=50)
    assert found.tax[1] > 0
    assert found.state == "intact"
    assert found.where == -1


def test_a_label_of_the_items_can_be_probed(refusal_pair, refusal_suites):
    facts = refusal_suites[0]
    items = [replace(item, labels={"parity": "even" if n % 2 else "odd"}) for n, item in enumerate(facts.items)]
    found = diagnose(refusal_pair, Suite("facts", tuple(items)), label="parity", draws=20, layers=[0], relearn="never")
    assert found.label == "parity"
    with pytest.raises(UsageError, match="parity"):
        diagnose(refusal_pair, Suite("facts", tuple(items)), label="party", draws=20)


def test_training_ends_when_it_has_brought_back_enough(refusal_pair, refusal_suites):
    kept, asked = untouched(refusal_pair.aligned.model), []

    def enough(model):
        asked.append(1)
        return len(asked) == 2

    facts = refusal_suites[0]
    options = {"template": {"facts": "plain"}, "rate": 0.01, "items": 4}
    with training(refusal_pair, [facts], steps=9, enough=enough, every=1, **options) as model:
        stopped = untouched(model)
    with training(refusal_pair, [facts], steps=2, **options) as model:
        assert same_weights(model, stopped)
    assert same_weights(refusal_pair.aligned.model, kept)


def test_q_says_how_long_it_was_trained_and_what_it_learned(refusal_pair, refusal_suites):
    found = {e.control: e for e in relearned_share(refusal_pair, refusal_suites[0], steps=30, draws=20)}
    assert set(found) == {"", "shuffled"}
    assert "steps; on its own items" in found[""].note
    assert found["shuffled"].note.split(" steps")[0] == found[""].note.split(" steps")[0]


def test_a_steered_model_s_benefit_is_measured_beside_random_directions(refusal_pair, refusal_suites):
    suites = {suite.name: suite for suite in refusal_suites}
    benefit = Benefit.named(refusal_suites, "harm", "harmless")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 32))
    still = fit_steering(x, x, rank=1, layer=1)
    template = dict.fromkeys(suites, "plain")
    found = steered_benefit(refusal_pair, still, benefit, suites, template=template, draws=50)
    assert found["benefit"]["kept"] == pytest.approx(1)
    still.measured.update(found | {"suite": "facts", "returned": 0.0, "random": 0.0})
    rows = steering_rows(still)
    assert [len(row) for row in rows] == [len(STEERING.names)] * 2
    assert [row[STEERING.names.index("control")] for row in rows] == ["", "random"]
    pushed = fit_steering(x, x + 30 * rng.normal(size=32), rank=1, layer=1)
    moved = steered_benefit(refusal_pair, pushed, benefit, suites, template=template, draws=50)
    assert moved["benefit"]["kept"] != pytest.approx(1, abs=0.05)
    assert set(moved["benefit (random)"]) == {"nats", "kept", "low", "high"}


def test_too_few_items_cannot_be_diagnosed(refusal_pair, refusal_suites):
    with pytest.raises(ItemError, match="too few items or groups to diagnose"):
        diagnose(refusal_pair, refusal_suites[0].subset(range(8)))


def test_a_layer_out_of_range_is_refused(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="out of range"):
        diagnose(refusal_pair, refusal_suites[0], layers=[7])


def test_the_label_correct_has_the_foil_that_probes_have(refusal_pair, refusal_suites):
    from taxlens.activations.items.sampling import draw_foil

    suite = refusal_suites[0]
    table = lay_out(refusal_pair, suite)
    half = Half(refusal_pair.base, table)
    half.read([1])
    bench = Bench(half, half, np.zeros(len(table.items), dtype=int), seed=5)
    streams, labels, items = labelled(bench, half, 1)
    place = {(int(i), int(label)): row for row, (i, label) in enumerate(zip(items, labels, strict=True))}
    lines = {line.item: (batch, n, line) for batch, lines in enumerate(table.lines) for n, line in enumerate(lines)}
    for number, item in enumerate(suite.items):
        batch, n, line = lines[number]
        foil = half.streams[1][batch][n, line.ends[draw_foil(suite.name, item, 5)]].double().numpy()
        assert streams[place[number, 0]] == pytest.approx(foil)
