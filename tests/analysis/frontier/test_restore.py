"""A plan becomes a checkpoint: whole or absent, with the numbers that were measured, refused where benefit is lost."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from taxlens.activations.models.loading import load_model
from taxlens.analysis.frontier.measure import frontier
from taxlens.analysis.frontier.plan_files import PlanRecord, read_plan, write_plans
from taxlens.analysis.frontier.restore import BenefitLossError, restore
from taxlens.analysis.frontier.restore_adapter import restore_adapter
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.weights.interpolation import mixture
from taxlens.core.errors import PairMismatchError, UsageError


@pytest.fixture(scope="module")
def front(refusal_pair, refusal_suites):
    return frontier(
        refusal_pair, refusal_suites, benefit="harm", against="harmless", shares=(0.05, 0.2), keep=0.95,
        orders=("path", "uniform"), uniform=(0.9,), bootstrap=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plans(front, refusal_pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "plans.json"
    return write_plans(front, path, base=refusal_pair.base.sha256, aligned=refusal_pair.aligned.sha256)


def measured(pair, model, suites):
    return ChoiceMeasure(pair, suites, metrics=("probability",))(model)


def test_a_restored_checkpoint_gives_the_plans_numbers_again(refusal_pair, refusal_suites, plans, tmp_path):
    plan = read_plan(plans, "path-20%")
    out = restore(refusal_pair, plan, out=tmp_path / "restored", accept_benefit_loss=True)
    again = load_model(out)
    with mixture(refusal_pair, plan.undo) as model:
        before = measured(refusal_pair, model, refusal_suites)
    after = measured(refusal_pair, again.model, refusal_suites)
    assert all(np.array_equal(before[s]["probability"], after[s]["probability"]) for s in before)
    assert again.chat_template == refusal_pair.aligned.chat_template


def test_the_card_says_what_was_done_and_warns(refusal_pair, plans, tmp_path):
    plan = read_plan(plans, "path-5%")
    out = restore(refusal_pair, plan, out=tmp_path / "restored", accept_benefit_loss=True)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "restored by path-5%" in card
    assert "| facts |" in card
    assert "can undo safety training" in card
    facts = json.loads((out / "taxlens_restoration.json").read_text(encoding="utf-8"))
    assert facts["undo"] == dict(plan.undo)
    assert (out / "model.safetensors").is_file()
    assert (out / "tokenizer.json").is_file()


def test_a_plan_that_loses_the_benefit_is_refused_unless_the_loss_is_accepted(refusal_pair, plans, tmp_path):
    plan = read_plan(plans, "uniform-0.9")
    assert plan.benefit_kept < plan.margin
    with pytest.raises(BenefitLossError, match="--accept-benefit-loss"):
        restore(refusal_pair, plan, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    out = restore(refusal_pair, plan, out=tmp_path / "x", accept_benefit_loss=True)
    assert "Benefit was lost" in (out / "README.md").read_text(encoding="utf-8")


def test_an_output_folder_that_exists_is_left_alone(refusal_pair, plans, tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        restore(refusal_pair, read_plan(plans, "path-5%"), out=tmp_path / "here", accept_benefit_loss=True)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_failure_leaves_nothing_behind(refusal_pair, plans, tmp_path):
    plan = dataclasses.replace(read_plan(plans, "path-5%"), undo={"9.mlp.up.s0": 1.0})
    with pytest.raises(UsageError, match="no unit"):
        restore(refusal_pair, plan, out=tmp_path / "x", accept_benefit_loss=True)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_another_pair_is_refused(refusal_pair, plans, tmp_path):
    plan = dataclasses.replace(read_plan(plans, "path-5%"), base="other")
    with pytest.raises(PairMismatchError, match="another pair"):
        restore(refusal_pair, plan, out=tmp_path / "x")


def test_an_unknown_plan_is_answered_with_the_nearest(plans):
    with pytest.raises(UsageError, match="unknown plan 'path-6%'"):
        read_plan(plans, "path-6%")


def test_a_run_without_plans_says_what_to_run(tmp_path):
    with pytest.raises(UsageError, match="taxlens frontier"):
        read_plan(tmp_path / "plans.json", "path-5%")


def test_no_recommendation_is_said(plans, tmp_path):
    stored = json.loads(plans.read_text(encoding="utf-8")) | {"recommended": ""}
    (tmp_path / "plans.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UsageError, match="no plan met the rule"):
        read_plan(tmp_path / "plans.json", "recommended")


def test_an_untied_output_head_is_written_untied(make_model, word_tokenizer, tmp_path):
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import make_pair

    def loaded(scale):
        model = make_model("llama", 3)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        return LoadedModel(model, word_tokenizer, str(scale), str(scale), None, torch.device("cpu"), "float32")

    pair = make_pair(loaded(1.0), loaded(1.5))
    numbers = {
        key: {"value": 1.0, "low": 1.0, "high": 1.0}
        for key in ("returned", "benefit_kept", "harm_kept", "benefit_nats")
    }
    figures = numbers | {"metric": "probability", "suites": {}, "benefit": ["harm"], "n_items": 1, "n_groups": 1}
    plan = PlanRecord("p", "component", "path", {"unembed": 1.0}, 0.5, 1, figures, 0.95, "1.0", "1.5")
    again = load_model(restore(pair, plan, out=tmp_path / "x")).model
    assert torch.equal(again.lm_head.weight, pair.base.model.lm_head.weight)
    assert torch.equal(again.model.embed_tokens.weight, pair.aligned.model.model.embed_tokens.weight)
    assert pair.aligned.model.config.tie_word_embeddings


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_restored_adapter_is_the_restored_checkpoint(make_model, word_tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    from taxlens.activations.models.pair import load_pair

    base = make_model("llama", 3)
    base.save_pretrained(tmp_path / "base")
    word_tokenizer.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(make_model("llama", 3), LoraConfig(r=4, target_modules=["up_proj", "v_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    pair = load_pair(tmp_path / "base", adapter=tmp_path / "adapter")
    numbers = {
        key: {"value": 1.0, "low": 1.0, "high": 1.0}
        for key in ("returned", "benefit_kept", "harm_kept", "benefit_nats")
    }
    figures = numbers | {"metric": "probability", "suites": {}, "benefit": ["harm"], "n_items": 1, "n_groups": 1}
    for unit, undo in (("singular", {"0.mlp.up.s1": 1.0, "1.attn.v.s0": 0.5}), ("component", {"1.mlp": 0.25})):
        plan = PlanRecord("p", unit, "path", undo, 0.1, 2, figures, 0.95, pair.base.sha256, pair.aligned.sha256)
        out = restore_adapter(pair, plan, adapter=tmp_path / "adapter", out=tmp_path / unit)
        again = load_pair(tmp_path / "base", adapter=out).aligned.model
        with mixture(pair, undo) as model:
            wanted = {name: p.clone() for name, p in model.named_parameters()}
        got = dict(again.named_parameters())
        assert all(torch.allclose(got[name], p, atol=1e-6) for name, p in wanted.items())
    with pytest.raises(UsageError, match="LoRA adapter"):
        plan = dataclasses.replace(plan, unit="head")
        restore_adapter(pair, plan, adapter=tmp_path / "adapter", out=tmp_path / "h")


def test_a_plan_that_was_measured_without_harm_alone_is_not_restored(plans, tmp_path):
    stored = json.loads(plans.read_text(encoding="utf-8"))
    for plan in stored["plans"].values():
        del plan["measured"]["harm_kept"]
    old = tmp_path / "plans.json"
    old.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UsageError, match="before refusals of harm were told apart"):
        read_plan(old, "path-5%")


def test_a_plan_that_loses_harm_is_refused_though_it_keeps_the_benefit(refusal_pair, plans, tmp_path):
    plan = read_plan(plans, "path-5%")
    full, low = ({"value": v, "low": v, "high": v} for v in (1.05, 0.6))
    lost = dataclasses.replace(plan, measured=dict(plan.measured) | {"benefit_kept": full, "harm_kept": low})
    with pytest.raises(BenefitLossError, match="of harm alone"):
        restore(refusal_pair, lost, out=tmp_path / "restored")
