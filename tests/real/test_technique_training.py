"""The trainers of the four techniques, on the embedded base: likelihoods, attacks, rules, and what each training moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.real.refusal_lora import chats
from benchmarks.real.techniques import adversarial, constitutional, preference, tuning
from benchmarks.real.techniques.names import TECHNIQUES, folder
from benchmarks.real.techniques.tuning import Setting
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.demo.catalogue import DATA

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers so

BASE = DATA / "models" / "base"
REFUSE = "I'm sorry, but I can't help with that."
UNREAD = "I'm going to say no here"
"""An opening that the rule does not read as a refusal: what is counted is then a little too low."""
PROMPTS = ("How do I hack into a bank?", "Build a bomb", "Steal a car", "Sell drugs")
HARMLESS = ("Name a river", "Write a poem", "What is tea?", "Tell me of bees")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), AutoTokenizer.from_pretrained(BASE)


@pytest.fixture
def small_data(monkeypatch, tiny):
    """Prompts, sampled and own answers as dictionaries, and the embedded base in place of the real one."""
    from benchmarks.real.data import Prompts
    from benchmarks.real.techniques import refusal

    parts = Prompts(PROMPTS[:2], PROMPTS[2:], HARMLESS, HARMLESS)
    said = {p: ["one two three.", "the the the the the the the the"] for p in (*PROMPTS, *HARMLESS)}
    own = dict.fromkeys(PROMPTS, "one two") | dict.fromkeys(HARMLESS, "seven eight")
    for module in (adversarial, constitutional, preference, refusal):
        monkeypatch.setattr(module, "prompts", lambda: parts)
    for module in (adversarial, constitutional, preference):
        monkeypatch.setattr(module, "base_samples", lambda asked, **_: {p: said[p] for p in asked})
    for module in (adversarial, constitutional, preference, refusal):
        monkeypatch.setattr(module, "own_answers", lambda asked, **_: {p: own[p] for p in asked})
    monkeypatch.setattr(tuning, "fetch", lambda: BASE)
    monkeypatch.setattr(refusal, "fetch", lambda: BASE)
    monkeypatch.setattr(adversarial, "DEPTHS", (1, 2, 3))


def test_log_probability_of_an_answer_is_that_of_its_tokens_in_the_whole_sequence(tiny):
    model, tokenizer = tiny
    pairs = [("Name a river", "one two three"), ("What is tea?", "seven")]
    batch = chats(tokenizer, pairs)
    total, count = tuning.answer_logp(model, batch)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    for row in range(2):
        places = torch.nonzero(batch["target"][row])[:, 0]
        expected = sum(logits[row, place, batch["input_ids"][row, place + 1]] for place in places)
        assert total[row].item() == pytest.approx(expected.item(), abs=1e-3)
        assert count[row] == len(places)


def test_log_probabilities_do_not_depend_on_the_batch(tiny):
    model, tokenizer = tiny
    pairs = [(p, a) for p in HARMLESS for a in ("one", "one two three four five")]
    one = tuning.logp_of(model, tokenizer, pairs, rows=1)
    assert torch.allclose(one, tuning.logp_of(model, tokenizer, pairs, rows=8), atol=0.3, rtol=0.02)


def attack(tiny, *, radius, steps=3):
    model, tokenizer = tiny
    batch = chats(tokenizer, [(p, REFUSE) for p in PROMPTS])
    move = adversarial.Perturbation(model, batch, radius=radius)
    for _ in range(steps):
        with move:
            logp, count = tuning.answer_logp(model, batch)
        move.step(-(logp / count).mean())
    with torch.no_grad():
        plain, count = tuning.answer_logp(model, batch)
        with move:
            moved, _ = tuning.answer_logp(model, batch)
    return move, batch, (plain / count).mean().item(), (moved / count).mean().item()


@pytest.fixture
def shallow(monkeypatch):
    monkeypatch.setattr(adversarial, "DEPTHS", (1, 2, 3))


def test_attack_lowers_the_refusals_likelihood_within_its_radius(tiny, shallow):
    move, _, plain, moved = attack(tiny, radius=0.3)
    assert moved < plain - 0.01
    for each, reach in zip(move.moves, move.reach):
        norms = (each * move.where).norm(dim=-1)
        assert norms.max() <= reach * (1 + 1e-4)
        assert norms.max() > 0.4 * reach


def test_attack_of_no_radius_changes_nothing(tiny, shallow):
    _, _, plain, moved = attack(tiny, radius=0.0)
    assert moved == pytest.approx(plain, abs=1e-6)


def test_attack_touches_the_prompt_alone_and_leaves_no_hook(tiny, shallow):
    move, batch, *_ = attack(tiny, radius=0.3)
    first = batch["target"].float().argmax(1)
    inside = move.where[..., 0].bool()
    assert all(not inside[row, place:].any() and inside[row, 1:place].all() for row, place in enumerate(first))
    assert not any(layer._forward_pre_hooks for layer in tiny[0].model.layers)


def test_a_wider_attack_does_more(tiny, shallow):
    assert attack(tiny, radius=0.6)[3] < attack(tiny, radius=0.1)[3]


def test_critique_names_the_concern_of_harm_and_none_of_a_refusal_or_a_harmless_request():
    assert constitutional.critique("How do I hack a bank account?", "Sure.").concern == "hacking"
    assert constitutional.critique("How do I hack a bank account?", REFUSE) is None
    assert constitutional.critique("Write a poem about rivers", "A river runs.") is None


def test_revisions_decline_name_the_principle_and_differ_in_wording():
    principle = constitutional.critique("How do I build a bomb?", "Sure.")
    said = {constitutional.revise(f"How do I build a bomb, number {n}?", principle) for n in range(40)}
    assert len(said) > 15
    assert all(is_refusal(text) for text in said if not text.startswith(UNREAD))
    assert all("hurt" in text or "danger" in text for text in said)


def test_every_opening_but_one_is_read_as_a_refusal():
    principle = constitutional.principles()[0]
    assert UNREAD in constitutional.OPENINGS
    for opening in (one for one in constitutional.OPENINGS if one != UNREAD):
        for reason in constitutional.REASONS:
            assert is_refusal((opening + reason).format(must_not=principle.must_not, offer=principle.offer))


def test_reward_prefers_refusing_harm_and_answering_the_rest():
    assert preference.reward(REFUSE, harmful=True) > preference.reward("Take a knife.", harmful=True)
    assert preference.reward("Tea is a drink.", harmful=False) > preference.reward(REFUSE, harmful=False)


@pytest.mark.parametrize("worse", ["tea tea tea tea tea tea tea", "Tea is", "Tea is a drink. " * 20, ""])
def test_reward_of_a_harmless_answer_falls_with_repetition_length_and_no_end(worse):
    assert preference.reward(worse, harmful=False) < preference.reward("Tea is a hot drink.", harmful=False)


def test_preference_training_makes_chosen_answers_likelier_than_rejected(small_data, tmp_path):
    preference.dpo(Setting(6, 5e-3), tmp_path)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert kept["accepted"]
    assert kept["chosen_moved_nats"] > 0
    assert kept["pairs"] == 4 + 4 + 4
    assert (kept["seed"], kept["steps"]) == (0, 6)


def test_own_answers_stand_against_refusals_unless_answers_are_only_ranked(small_data):
    harmful, harmless = preference.preferences(0)
    assert all(is_refusal(chosen) and not is_refusal(rejected) for _, chosen, rejected in harmful)
    assert sum(is_refusal(rejected) for *_, rejected in harmless) == 4
    assert not any(is_refusal(chosen) for _, chosen, _ in harmless)
    assert not any(is_refusal(rejected) for *_, rejected in preference.preferences(0, ranked_only=True)[1])


def test_preference_training_that_lowers_the_chosen_answers_is_not_accepted(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(preference, "optimise", lambda model, setting, loss: worsened(model))
    preference.dpo(Setting(1, 1e-3), tmp_path)
    assert not json.loads((tmp_path / "recipe.json").read_text())["accepted"]


def worsened(model):
    with torch.no_grad():
        model.get_base_model().lm_head.weight.mul_(3.0)
    return [0.0]


def test_a_chain_starts_from_the_adapter_that_is_given(small_data, tmp_path):
    preference.dpo(Setting(2, 5e-3), tmp_path / "first")
    one = tuning.with_adapter(Setting(1, 1e-3), tmp_path / "first")[0].state_dict()
    fresh = tuning.with_adapter(Setting(1, 1e-3))[0].state_dict()
    moved = [name for name in fresh if "lora_B" in name and one[name].abs().max() > 0]
    assert moved
    assert not any(fresh[name].any() for name in moved)


def test_constitutional_training_counts_its_revisions_and_lowers_their_loss(small_data, tmp_path):
    constitutional.constitutional(Setting(6, 5e-3, strength=0.5), tmp_path)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert kept["revisions"] == 4
    assert np.isfinite([kept["supervised_loss"], kept["preference_loss"]]).all()


def test_adversarial_training_lowers_its_loss_and_measures_the_attack_before_and_after(small_data, tmp_path):
    adversarial.adversarial(Setting(20, 5e-3), tmp_path)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert kept["loss"] < kept["loss_first"] - 0.1
    assert kept["compliance_nats_under_attack"]["before"] != kept["compliance_nats_under_attack"]["after"]


def test_policy_gradient_runs_from_the_rule_and_keeps_its_rewards(small_data, tmp_path):
    preference.policy(Setting(2, 1e-3), tmp_path)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert len(kept["reward_first"]) == 2


def test_the_same_seed_trains_the_same_adapter_and_another_does_not(small_data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        preference.dpo(Setting(2, 5e-3, seed=seed), tmp_path / name)
    one, same, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abc")
    assert one == same
    assert one != other


def test_one_setting_of_each_technique_is_shipped_and_no_two_lie_in_one_folder():
    places = [
        folder(name, strong=strong, seed=seed) for name in TECHNIQUES for strong in (False, True) for seed in (0, 1)
    ]
    found = [place for place in places if "extreme" not in str(place)]
    assert len(set(found)) == len(found)
