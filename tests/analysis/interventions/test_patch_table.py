"""The table of patches: both directions, heads and positions, controls of equal size, and nothing blamed untouched."""

import copy

import pandas as pd
import pytest
import torch

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.analysis.interventions.effect_tables import PATCHES
from taxlens.analysis.interventions.patch_table import Patch, chosen_patches, patch_table
from taxlens.analysis.interventions.patching import patched_values
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import SelfCheckError


@pytest.fixture(scope="module")
def pair(make_model, word_tokenizer):
    base = make_model("llama", 0)
    aligned = copy.deepcopy(base)
    with torch.no_grad():
        for name, weight in aligned.named_parameters():
            if ("layers.0" in name or "layers.1.mlp" in name) and weight.ndim == 2:
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    ends = [
        LoadedModel(m, word_tokenizer, n, n, None, torch.device("cpu"), "float32")
        for n, m in (("base", base), ("aligned", aligned))
    ]
    return make_pair(*ends)


@pytest.fixture(scope="module")
def suite():
    items = [Item(f"i{n}", f"g{n % 3}", f"w{n} w{n + 3} w5", choices=(" w1", f" w{n + 7}"), gold=0) for n in range(6)]
    return Suite("six", tuple(items))


@pytest.fixture(scope="module")
def table(pair, suite):
    patches = [
        Patch("0.attn", "leading"), Patch("0.attn", "leading", "0", (0,)), Patch("0.attn", "leading", "1-", tuple(range(1, 99))),
        Patch("0.attn.h1", "random"), Patch("1.attn", "untouched"),
    ]  # fmt: skip
    return patch_table(pair, [suite], patches, metrics=("margin", "nll"), draws=50)


def picked(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    return float(table["effect"].iloc[0])


def test_the_table_has_every_patch_in_both_directions_and_every_part(table):
    assert tuple(table.columns) == PATCHES.names
    assert len(table) == 5 * 2 * 3 * 2
    assert set(table["into"]) == {"base", "aligned"}
    assert set(table["part"]) == {"cause", "carrier", "both"}
    assert set(table["level"]) == {"component", "head"}
    assert (table["low"] <= table["high"]).all()


def test_an_untouched_component_has_no_cause_and_still_carries(table):
    untouched = table[table["role"] == "untouched"]
    assert (untouched[untouched["part"] == "cause"]["effect"] == 0).all()
    assert untouched[untouched["part"] == "carrier"]["effect"].abs().max() > 0


def test_effects_are_those_of_the_single_patch(pair, suite, table):
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure, losses

    measure = ChoiceMeasure(pair, (suite,), metrics=("nll",))
    moved = patched_values(pair, measure, "0.attn.h1", part="cause", into="aligned")
    wanted = losses(measure(pair.aligned.model), moved)["six", "nll"].mean()
    assert picked(table, component="0.attn.h1", into="aligned", part="cause", metric="nll") == pytest.approx(wanted)


def test_the_first_positions_input_is_shared_so_that_nothing_is_carried_into_the_first_layer(table):
    carried = table[(table["component"] == "0.attn") & (table["part"] == "carrier") & (table["into"] == "base")]
    assert carried["effect"].abs().max() < 1e-5


def test_patching_no_position_beyond_the_end_is_no_patch(pair, suite):
    far = patch_table(pair, [suite], [Patch("0.attn", "leading", "50-", (50, 51))], metrics=("nll",), draws=50)
    assert (far["effect"] == 0).all()


def test_chosen_patches_take_leading_ones_random_ones_of_their_kind_and_one_untouched(pair):
    names = ["0.attn", "0.mlp", "1.attn", "1.mlp", "embed"]
    heads = [f"{layer}.attn.h{h}" for layer in (0, 1) for h in range(4)]
    rows = [("component", name, share) for name, share in zip(names, (0.1, 0.6, 0.0, 0.2, 0.9))]
    rows += [("head", name, 1 / (2 + n)) for n, name in enumerate(heads)]
    found = chosen_patches(pair, pd.DataFrame(rows, columns=["level", "component", "share"]), leading=1, positions=2)
    by_role = {
        role: [p.component for p in found if p.role == role and not p.position]
        for role in ("leading", "random", "untouched")
    }
    assert by_role["leading"] == ["0.mlp", "0.attn.h0"]
    assert by_role["random"][0] == "1.mlp"
    assert by_role["random"][1] in heads[1:]
    assert by_role["untouched"] == ["1.attn"]
    assert [p.position for p in found if p.position] == ["0", "1", "2-"]
    sizes = [difference_of(pair).unit(n, level="component").parts for n in ("0.mlp", "1.mlp")]
    assert len(sizes[0]) == len(sizes[1])


def test_blaming_an_untouched_component_is_an_error(pair, suite, monkeypatch):
    from taxlens.analysis.interventions import patch_table as module

    real = module._effects
    monkeypatch.setattr(module, "_effects", lambda *a: {key: value + 1 for key, value in real(*a).items()})
    with pytest.raises(SelfCheckError, match=r"(?s)did not change was blamed.*1\.attn"):
        patch_table(pair, [suite], [Patch("1.attn", "untouched")], metrics=("nll",), draws=50)


def test_a_pair_whose_every_component_changed_has_no_untouched_control(refusal_pair):
    moved = copy.deepcopy(refusal_pair.aligned.model)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(1e-3)
    import dataclasses

    pair = make_pair(refusal_pair.base, dataclasses.replace(refusal_pair.aligned, model=moved))
    frame = pd.DataFrame({"level": ["component"], "component": ["0.mlp"], "share": [1.0]})
    assert {p.role for p in chosen_patches(pair, frame, leading=1)} == {"leading"}
