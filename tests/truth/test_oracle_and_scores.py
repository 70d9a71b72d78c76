"""The exact oracle and the scores of the proving ground."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.truth.oracle import coalition_values, shapley
from benchmarks.truth.page.scores import mass, score
from taxlens.analysis.interventions.shapley import exact_shapley


@pytest.fixture
def game():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2**4, 3))


def test_shapley_values_sum_to_the_value_of_all_minus_none(game):
    np.testing.assert_allclose(shapley(game, 4).sum(0), game[-1] - game[0], atol=1e-12)


def test_shapley_values_equal_those_of_the_analysis(game):
    other = exact_shapley(lambda s: game[sum(1 << i for i in s)], 4).values
    np.testing.assert_allclose(shapley(game, 4), other, atol=1e-12)


def test_a_dummy_player_gets_zero_and_a_lone_one_gets_all():
    values = np.array([float(bool(c & 2)) for c in range(8)])
    np.testing.assert_allclose(shapley(values, 3), [0, 1, 0], atol=1e-12)


def test_coalitions_hold_exactly_the_changes_of_their_players():
    names = ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"]
    base = {name: torch.zeros(1) for name in names}
    change = {names[0]: torch.ones(1), names[1]: 2 * torch.ones(1)}
    values = coalition_values(
        base, change, ["0.mlp", "unembed"], lambda w: np.array([float(sum(v.sum() for v in w.values()))])
    )
    assert values[:, 0].tolist() == [0, 1, 2, 3]


def test_the_oracle_itself_scores_perfectly():
    oracle = {"0.mlp": 0.3, "1.mlp": 0.1, "2.attn": 0.0}
    found = score(oracle, oracle, ["0.mlp", "1.mlp"], tax=0.4, passes=8)
    assert found.top
    assert found.mass == pytest.approx(1)
    assert found.relative_mass == pytest.approx(1)
    assert found.distance == pytest.approx(0)
    assert found.closure == pytest.approx(1)


def test_blame_on_the_wrong_component_scores_nothing():
    oracle = {"0.mlp": 0.4, "1.mlp": 0.0}
    found = score({"1.mlp": 0.4}, oracle, ["0.mlp"], tax=0.4, passes=1)
    assert not found.top
    assert found.mass == 0
    assert found.distance == pytest.approx(2)


def test_mass_counts_only_positive_effects():
    assert mass(np.array([0.2, -5.0, 0.2]), np.array([True, True, False])) == pytest.approx(0.5)
