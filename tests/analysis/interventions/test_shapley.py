"""Shapley values of a game: the axioms, the brute-force average over orders, and sampling with an honest error."""

import itertools

import numpy as np
import pytest

from taxlens.analysis.interventions.shapley import exact_shapley, sampled_shapley
from taxlens.core.errors import UsageError


def brute_force(game, n):
    orders = list(itertools.permutations(range(n)))
    values = np.zeros(n)
    for order in orders:
        for place, player in enumerate(order):
            values[player] += game(frozenset(order[: place + 1])) - game(frozenset(order[:place]))
    return values / len(orders)


def random_game(n, seed=0):
    table = np.random.default_rng(seed).normal(size=2**n)
    return lambda members: np.float64(table[sum(1 << i for i in members)])


def test_exact_shapley_equals_the_average_over_all_orders():
    game = random_game(5)
    assert np.allclose(exact_shapley(game, 5).values, brute_force(game, 5), atol=1e-12)


def test_exact_shapley_sums_to_the_whole_and_gives_a_dummy_nothing():
    game = random_game(4)

    def blind(members):
        return game(members - {2})

    values = exact_shapley(blind, 4).values
    assert values[2] == 0
    assert values.sum() == pytest.approx(game(frozenset({0, 1, 3})) - game(frozenset()))


def test_sampled_shapley_closes_exactly_and_covers_the_exact_values():
    game = random_game(6, seed=3)
    sampled, exact = sampled_shapley(game, 6, pairs=200, seed=0), exact_shapley(game, 6)
    assert sampled.values.sum() == pytest.approx(exact.values.sum())
    assert (np.abs(sampled.values - exact.values) < 4 * sampled.error).all()
    assert sampled.coalitions <= 64


def test_sampled_shapley_of_an_additive_game_is_exact_with_no_error():
    worth = np.array([1.0, -2.0, 0.5])
    sampled = sampled_shapley(lambda members: worth[list(members)].sum(), 3, pairs=4, seed=0)
    assert np.allclose(sampled.values, worth)
    assert np.allclose(sampled.error, 0)


def test_too_many_players_for_exact_values_are_refused():
    with pytest.raises(UsageError, match="too many players"):
        exact_shapley(random_game(2), 21)


def test_one_pair_of_orders_is_refused():
    with pytest.raises(UsageError, match="at least 2 pairs"):
        sampled_shapley(random_game(2), 2, pairs=1)


def test_orders_come_in_pairs_that_cancel_what_pairs_of_players_do():
    """A game of pairs alone: over an order and its reverse every player gets exactly its share, so two pairs suffice."""
    found = sampled_shapley(lambda members: np.float64(len(members) ** 2), 7, pairs=2, seed=0)
    assert np.allclose(found.values, 7.0, atol=1e-12)
    assert np.allclose(found.error, 0.0, atol=1e-12)


def test_the_error_of_two_pairs_is_half_their_difference():
    found = sampled_shapley(random_game(6, seed=1), 6, pairs=2, seed=0)
    assert found.error == pytest.approx(np.abs(found.drawn[0] - found.drawn[1]) / 2)
    assert found.error.max() > 0
