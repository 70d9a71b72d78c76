"""State plants: what each does to the stream and to the suite it is planted in."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.func import functional_call

from benchmarks.truth.plants.parts import component_of, subtract, weights_of
from benchmarks.truth.plants.state_plants import accept_state
from benchmarks.truth.plants.states import (
    mapped_stream,
    plant_attenuated,
    plant_erased,
    plant_rotated,
    plant_suppressed,
    stream,
)
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.texts import ask
from benchmarks.truth.worlds.world import World
from taxlens.demo import resolve


@pytest.fixture(scope="module")
def model():
    return read_model(resolve("demo:base"))


@pytest.fixture(scope="module")
def facts():
    return exam(World(), "facts")


def stream_of(model, weights, *, layer):
    texts = ask(World().questions("facts")[:40], template="plain")
    states = functional_call(
        model, weights, kwargs={"input_ids": texts.ids, "output_hidden_states": True}
    ).hidden_states[layer + 1]
    return states[torch.arange(40), texts.start - 1]


def loss(model, weights, sheet):
    base = mean_marks(model, weights_of(model), sheet)["accuracy"]
    return base - mean_marks(model, weights, sheet)["accuracy"]


def test_a_rotated_stream_is_the_base_s_turned_by_the_map(model):
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(96, 96, dtype=torch.float64)).Q
    weights = mapped_stream(weights_of(model), turn, layer=1)
    straight = stream_of(model, weights_of(model), layer=1)
    torch.testing.assert_close(stream_of(model, weights, layer=1), straight @ turn.float().T, atol=2e-4, rtol=1e-3)


def test_blocks_above_the_map_are_the_base_s(model):
    plant = plant_rotated(model, World(), layer=1, rank=8)
    moved = {component_of(n) for n, v in subtract(plant.weights, weights_of(model)).items() if v.abs().max() > 0}
    assert moved == {"embed", "0.attn", "0.mlp", "1.attn", "1.mlp"}


def test_rotation_taxes_facts_and_keeps_every_length(model, facts):
    plant = plant_rotated(model, World(), layer=2)
    assert loss(model, plant.weights, facts) >= 0.2
    straight = stream_of(model, weights_of(model), layer=2)
    turned = stream_of(model, plant.weights, layer=2)
    torch.testing.assert_close(turned.norm(dim=1), straight.norm(dim=1), atol=1e-2, rtol=1e-3)


def test_attenuation_shrinks_the_planted_directions_against_the_rest(model):
    plant = plant_attenuated(model, World(), layer=1, keep=0.3)
    assert plant.directions is not None
    before = stream(model, World(), "facts", layer=1)[:40]
    after = stream_of(model, plant.weights, layer=1)
    inside, outside = before @ plant.directions.T, after @ plant.directions.T
    slope = float((inside * outside).sum() / (inside * inside).sum())
    rest, left = before - inside @ plant.directions, after - outside @ plant.directions
    assert slope / float((rest * left).sum() / (rest * rest).sum()) == pytest.approx(0.3, abs=0.05)


def test_erasure_leaves_no_difference_between_subjects(model, facts):
    plant = plant_erased(model, World())
    states = stream_of(model, plant.weights, layer=3).view(10, 4, -1)
    assert float((states - states[:1]).abs().max()) <= 1e-3
    assert loss(model, plant.weights, facts) >= 0.5


def test_half_an_erasure_is_none(model):
    plant = plant_erased(model, World(), keep=0.5)
    states = stream_of(model, plant.weights, layer=3).view(10, 4, -1)
    assert float((states - states[:1]).abs().max()) > 0.1


@pytest.mark.parametrize("make", [plant_rotated, partial(plant_attenuated, keep=0.2), plant_erased])
def test_state_plants_made_by_hand_are_accepted(model, make):
    assert accept_state(model, World(), make(model, World())).accepted


def test_a_plant_that_changes_nothing_is_not_accepted(model):
    assert not accept_state(model, World(), plant_attenuated(model, World(), keep=1.0)).accepted
    assert not accept_state(model, World(), plant_erased(model, World(), keep=1.0)).accepted


@pytest.mark.slow
def test_a_suppressed_plant_is_accepted_and_one_direction_undoes_it(model):
    judged = accept_state(model, World(), plant_suppressed(model, World(), steps=150))
    assert judged.accepted
    assert judged.undone >= 0.9


@pytest.mark.slow
def test_suppression_moves_one_matrix_by_rank_one_and_refuses(model, facts):
    plant = plant_suppressed(model, World(), layer=2)
    change = subtract(plant.weights, weights_of(model))
    moved = [name for name, value in change.items() if value.abs().max() > 0]
    assert moved == ["model.layers.2.mlp.down_proj.weight"]
    assert int(torch.linalg.matrix_rank(change[moved[0]], rtol=1e-4)) == 1
    assert mean_marks(model, plant.weights, facts)["refusal"] >= 0.5
