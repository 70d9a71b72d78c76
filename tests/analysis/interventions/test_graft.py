"""Single grafts and restores: zero where nothing changed, exact where units do not interact, nothing left behind."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from taxlens.activations.models.anatomy import anatomy
from taxlens.analysis.interventions.effect_tables import ATTRIBUTION
from taxlens.analysis.interventions.effects import UnitEffects
from taxlens.analysis.interventions.graft import check_unchanged, graft_effects, restore_effects
from taxlens.analysis.interventions.shapley import shapley_effects
from taxlens.analysis.weights.units import Difference
from taxlens.core.errors import SelfCheckError
from tests.kept_weights import same_weights, untouched

IDS = torch.arange(24).reshape(6, 4) % 23
GROUPS = {"toy": np.array(["a", "a", "b", "b", "c", "c"], dtype=object)}


class Loaded:
    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.anatomy = anatomy(model)


class Pair:
    def __init__(self, changed, scale=0.2):
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, attn_implementation="eager",
        )  # fmt: skip
        base, aligned = LlamaForCausalLM(config), LlamaForCausalLM(config)
        aligned.load_state_dict(base.state_dict())
        with torch.no_grad():
            for name, p in aligned.named_parameters():
                if any(part in name for part in changed):
                    p.add_(scale * torch.randn_like(p))
        self.base, self.aligned = Loaded(base), Loaded(aligned)


def measure(model):
    """Margin of token 3 over token 5 after each row: one suite, one metric."""
    with torch.no_grad():
        last = model(IDS).logits[:, -1].double()
    return {"toy": {"margin": (last[:, 3] - last[:, 5]).numpy()}}


KEY = ("toy", "margin")


def test_a_unit_that_did_not_change_gets_exactly_zero():
    grafts = graft_effects(Pair(["layers.1.mlp"]), measure, groups=GROUPS)
    units = grafts.graft.units
    for effects in (grafts.graft, grafts.restore):
        other = [i for i, name in enumerate(units) if name != "1.mlp"]
        assert (effects.values[KEY][:, other] == 0).all()


def test_the_only_changed_unit_carries_the_whole_tax_both_ways():
    grafts = graft_effects(Pair(["layers.1.mlp"]), measure, groups=GROUPS)
    place = grafts.graft.units.index("1.mlp")
    for effects in (grafts.graft, grafts.restore):
        assert np.array_equal(effects.values[KEY][:, place], effects.taxes[KEY])
        assert effects.closure(*KEY) == pytest.approx(1)
    assert np.array_equal(grafts.graft.values[KEY], grafts.restore.values[KEY])


def test_interacting_units_differ_between_graft_and_restore():
    grafts = graft_effects(Pair(["layers.0", "layers.1"], scale=0.5), measure, groups=GROUPS)
    apart = np.abs(grafts.restore.mean(*KEY) - grafts.graft.mean(*KEY)).sum()
    assert apart > 0.01 * abs(grafts.graft.taxes[KEY].mean())
    assert grafts.normalised(*KEY).sum() == pytest.approx(grafts.graft.taxes[KEY].mean())


def test_restoring_alone_gives_the_restores_of_both_and_scores_one_model_a_unit():
    scored = []

    def counted(model):
        scored.append(model)
        return measure(model)

    pair, names = Pair(["layers.0", "layers.1"], scale=0.5), ["0.attn", "0.mlp", "1.mlp"]
    both = graft_effects(pair, measure, groups=GROUPS, units=names).restore
    alone = restore_effects(pair, counted, groups=GROUPS, units=names)
    assert np.array_equal(alone.values[KEY], both.values[KEY])
    assert len(scored) == len(names) + 4  # both ends before and after


def test_grafting_leaves_both_models_as_they_were():
    pair = Pair(["layers"])
    kept = [untouched(m.model) for m in (pair.base, pair.aligned)]
    graft_effects(pair, measure, groups=GROUPS, level="head")
    assert all(same_weights(m.model, k) for m, k in zip((pair.base, pair.aligned), kept))


def test_rows_have_the_columns_of_attribution_csv():
    frame = graft_effects(Pair(["layers"]), measure, groups=GROUPS, units=["0.mlp", "1.attn"]).to_frame()
    assert tuple(frame.columns) == ATTRIBUTION.required
    assert sorted(set(frame.method)) == ["graft", "restore"]
    assert (frame.low <= frame.effect).all()
    assert (frame.effect <= frame.high).all()


def test_a_model_that_scores_differently_afterwards_is_reported():
    with pytest.raises(SelfCheckError, match="scores differently after an intervention"):
        check_unchanged({"s": {"m": np.zeros(2)}}, {"s": {"m": np.array([0.0, 1e-9])}})


def test_shapley_effects_close_on_the_measured_tax_item_by_item():
    effects = shapley_effects(Pair(["layers"], scale=0.4), measure, groups=GROUPS)
    assert np.allclose(effects.values[KEY].sum(axis=1), effects.taxes[KEY], atol=1e-5)
    assert effects.forwards == 2**6 + 2
    assert (effects.errors[KEY] == 0).all()


def test_shapley_of_grouped_players_closes_too():
    pair = Pair(["layers"], scale=0.4)
    names = list(Difference(pair).units("head"))
    players = {f"layer {i}": [n for n in names if n.startswith(f"{i}.")] for i in range(2)}
    effects = shapley_effects(pair, measure, groups=GROUPS, players=players, level="head")
    assert effects.units == ("layer 0", "layer 1")
    assert np.allclose(effects.values[KEY].sum(axis=1), effects.taxes[KEY], atol=1e-5)


def test_many_players_are_sampled_with_an_error():
    effects = shapley_effects(Pair(["layers"], scale=0.4), measure, groups=GROUPS, level="head", pairs=3)
    assert len(effects.units) > 10
    assert effects.total(*KEY) == pytest.approx(effects.taxes[KEY].mean(), abs=1e-5)
    assert (effects.errors[KEY][[u.endswith("h0") for u in effects.units]] > 0).all()


def test_effects_below_rounding_are_told_from_none_by_no_table():
    values = np.full((8, 2), 1e-10) + np.arange(16.0).reshape(8, 2) * 1e-12
    real = np.column_stack([np.full(8, 0.3), values[:, 1]]) + np.arange(16.0).reshape(8, 2) * 1e-3
    groups = {"s": np.arange(8)}
    told = {}
    for name, effects in (("rounding", values), ("real", real)):
        found = UnitEffects(
            "graft", "component", "plain", ("0.mlp", "1.mlp"), (0, 1), ("mlp", "mlp"), {("s", "nll"): effects},
            {("s", "nll"): effects.sum(axis=1)}, groups, draws=200,
        )  # fmt: skip
        told[name] = found.to_frame(), found.closure_frame()
    rows, closure = told["rounding"]
    assert (rows["low"] <= 0).all()
    assert (rows["high"] >= 0).all()
    assert rows["share"].isna().all()
    assert closure["residual_share"].isna().all()
    rows, closure = told["real"]
    assert rows["low"].iloc[0] > 0
    assert rows["share"].notna().all()
