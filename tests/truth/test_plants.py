"""Plants are what they say: made by training, small enough to run in the suite."""

from __future__ import annotations

import pytest
import torch

from benchmarks.truth.plants.parts import add, component_of, norm, players, select, subtract, weights_of
from benchmarks.truth.plants.plants import lectures, noise
from benchmarks.truth.proving import stretched
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.techniques.adapter import adapter_pair, plant_adapter, write_adapter
from benchmarks.truth.techniques.train_base import gpt2, llama
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.families import low_rank_harm
from benchmarks.truth.worlds.world import World
from taxlens.activations.models.pair import load_pair
from taxlens.demo import resolve


@pytest.fixture(scope="module")
def model():
    return read_model(resolve("demo:base"))


def test_every_parameter_belongs_to_one_component(model):
    named = {component_of(name) for name in weights_of(model)}
    norms = {f"{layer}.norm" for layer in range(4)} | {"final_norm"}
    assert named == set(players(model)) | norms


def test_worlds_of_another_layout_and_depth_have_the_same_players():
    assert players(gpt2(n_layers=8)) == players(llama(n_layers=8))
    named = {component_of(name) for name in weights_of(gpt2())}
    assert {part for part in named if "norm" not in part} == set(players(llama()))


def test_adding_and_subtracting_a_change_gives_the_weights_back(model):
    weights = weights_of(model)
    change = noise(weights, ["1.mlp"], size=2.0, seed=0)
    assert norm(change) == pytest.approx(2.0, rel=1e-5)
    back = subtract(add(weights, change), weights)
    assert {component_of(n) for n, v in back.items() if v.abs().max() > 0} == {"1.mlp"}


def test_lectures_never_show_a_held_out_pair():
    world = World()
    lesson = lectures(world, copies=20)
    shown = [q for q in lesson.questions if q.task in ("comparison", "harm", "harmless")]
    assert shown
    assert not any(world.held_out(q) for q in shown)


def test_low_rank_harm_loads_as_an_adapter_with_the_same_tax(model, tmp_path):
    change, factors = low_rank_harm(model, World(), parts=("2.mlp",), rank=2, steps=12)
    write_adapter(factors, tmp_path, base=resolve("demo:base"))
    pair = load_pair(resolve("demo:base"), adapter=tmp_path)
    merged = {n: v.detach() for n, v in pair.aligned.model.named_parameters()}
    for name, value in select(weights_of(model), ["2.mlp"]).items():
        torch.testing.assert_close(merged[name], value + change[name], atol=1e-5, rtol=1e-4)
    sheet = exam(World(), "facts", items=24)
    mine = mean_marks(model, add(weights_of(model), change), sheet)
    assert mean_marks(model, merged, sheet)["nll"] == pytest.approx(mine["nll"], abs=1e-4)


def test_a_plant_of_adapters_loads_through_peft_with_its_weights(model):
    plant = plant_adapter(model, World(), parts=("2.mlp",), decoy=("0.attn",), larger=2.0, steps=2, seed=0)
    assert norm(plant.changes["decoy"]) == pytest.approx(2 * norm(plant.changes["harm"]), rel=1e-4)
    pair = adapter_pair(plant, base=resolve("demo:base"))
    merged = {n: v.detach() for n, v in pair.aligned.model.named_parameters()}
    for name, value in plant.aligned.items():
        torch.testing.assert_close(merged[name], value, atol=1e-4, rtol=1e-3)


def test_components_are_stretched_over_a_deeper_model():
    assert stretched(llama(n_layers=8), ("1.attn", "3.mlp")) == ("2.attn", "6.mlp")
    assert stretched(llama(n_layers=4), ("1.attn", "3.mlp")) == ("1.attn", "3.mlp")
