"""Patches across models: cause and carrier add up, the cause is the component's own weights, stitches telescope."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from taxlens.activations.hooks.paired_forward import replaced_output
from taxlens.activations.models.anatomy import anatomy
from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.interventions.patching import patch_effects, patched_values
from taxlens.analysis.interventions.stitching import stitched_profile
from taxlens.core.errors import UsageError

IDS = torch.arange(24).reshape(6, 4) % 23
GROUPS = {"toy": np.array(["a", "a", "b", "b", "c", "c"], dtype=object)}
KEY = ("toy", "margin")


class Loaded:
    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.anatomy = anatomy(model)


def llama():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, attn_implementation="eager",
        )
    )  # fmt: skip


def gpt2():
    sizes = {"vocab_size": 23, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, attn_implementation="eager"))


class Pair:
    def __init__(self, changed, make=llama, scale=0.3):
        torch.manual_seed(1)
        base, aligned = make(), make()
        aligned.load_state_dict(base.state_dict())
        with torch.no_grad():
            for name, p in aligned.named_parameters():
                if any(part in name for part in changed):
                    p.add_(scale * torch.randn_like(p))
        self.base, self.aligned = Loaded(base), Loaded(aligned)


def measure(model):
    with torch.no_grad():
        last = model(input_ids=IDS).logits[:, -1].double()
    return {"toy": {"margin": (last[:, 3] - last[:, 5]).numpy()}}


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_cause_taken_from_the_aligned_model_is_the_restored_weights(make):
    changed = ["layers.1.mlp", "layers.0.self_attn", "h.1.mlp", "h.0.attn"]
    pair = Pair(changed, make)
    cause, _ = patch_effects(pair, measure, groups=GROUPS, units=["0.attn", "1.mlp"], into="aligned")
    restore = graft_effects(pair, measure, groups=GROUPS, units=["0.attn", "1.mlp"]).restore
    assert np.allclose(cause.values[KEY], restore.values[KEY], atol=1e-5)


def test_a_component_with_unchanged_weights_has_no_cause_but_may_carry():
    pair = Pair(["layers.0.self_attn"])
    cause, carrier = patch_effects(pair, measure, groups=GROUPS, units=["2.mlp"], into="base")
    assert (cause.values[KEY] == 0).all()
    assert np.abs(carrier.values[KEY]).max() > 1e-4


def test_nothing_is_carried_into_the_first_component():
    pair = Pair(["layers.0.self_attn"])
    cause, carrier = patch_effects(pair, measure, groups=GROUPS, units=["0.attn"])
    assert np.abs(cause.values[KEY]).max() > 1e-4
    assert np.abs(carrier.values[KEY]).max() == 0


@pytest.mark.parametrize("into", ["base", "aligned"])
def test_cause_and_carrier_add_up_to_the_whole_patch_of_the_output(into):
    pair = Pair(["layers"], scale=0.02)
    seen = {}

    def capture(part):
        def score(model):
            block = model.model.layers[1].mlp
            with replaced_output(block, lambda h: seen.__setitem__(part, h.clone()) or h):
                return measure(model)

        patched_values(pair, score, "1.mlp", part=part, into=into)

    for part in ("cause", "carrier", "both"):
        capture(part)
    plain = {}
    end = (pair.base if into == "base" else pair.aligned).model
    with replaced_output(end.model.layers[1].mlp, lambda h: plain.__setitem__("end", h.clone()) or h):
        measure(end)
    moved = [seen[part] - plain["end"] for part in ("cause", "carrier", "both")]
    assert torch.allclose(moved[0] + moved[1], moved[2], atol=1e-6)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_heads_move_what_their_attention_moves(make):
    """Patching one head alone moves the output by its own share; with one changed head that is all of it."""
    pair = Pair([], make)
    with torch.no_grad():
        role = pair.aligned.anatomy.role("o", 1)
        weight = pair.aligned.model.get_submodule(role.name).weight
        (weight.T if make is llama else weight)[4:8] += 0.5
    whole, _ = patch_effects(pair, measure, groups=GROUPS, units=["1.attn"])
    heads, _ = patch_effects(pair, measure, groups=GROUPS, units=[f"1.attn.h{i}" for i in range(4)])
    assert heads.level == "head"
    assert np.allclose(heads.values[KEY][:, 1], whole.values[KEY][:, 0], atol=1e-6)
    assert np.allclose(heads.values[KEY][:, [0, 2, 3]], 0)


def test_a_patch_at_no_position_does_nothing_and_at_the_last_does_something():
    pair = Pair(["layers.2.mlp"])
    nowhere, _ = patch_effects(pair, measure, groups=GROUPS, units=["2.mlp"], positions=[9])
    last, _ = patch_effects(pair, measure, groups=GROUPS, units=["2.mlp"], positions=[3])
    everywhere, _ = patch_effects(pair, measure, groups=GROUPS, units=["2.mlp"])
    assert (nowhere.values[KEY] == 0).all()
    assert np.allclose(last.values[KEY], everywhere.values[KEY])


def test_an_embedding_cannot_be_patched():
    with pytest.raises(UsageError, match="only a block's parts and heads"):
        patch_effects(Pair(["layers"]), measure, groups=GROUPS, units=["embed"])


@pytest.mark.parametrize("make", [llama, gpt2])
def test_stitched_steps_telescope_to_the_tax_item_by_item(make):
    profile = stitched_profile(Pair(["layers", "h."], make), measure, groups=GROUPS)
    assert profile.layers == (0, 1, 2, 3)
    assert np.allclose(profile.steps(*KEY).sum(axis=1), profile.taxes[KEY], atol=1e-12)


def test_restoration_is_zero_below_the_only_changed_layer_and_one_above_it():
    frame = stitched_profile(Pair(["layers.1."]), measure, groups=GROUPS).to_frame().set_index("layer")
    assert frame.restored.loc[[0, 1]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert frame.restored.loc[[2, 3]].tolist() == pytest.approx([1, 1], abs=1e-6)


def test_a_cut_beyond_the_model_is_refused():
    with pytest.raises(UsageError, match="between the model's layers"):
        stitched_profile(Pair(["layers"]), measure, groups=GROUPS, layers=[4])
