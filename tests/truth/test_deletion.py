"""Deletion curves: how fast a tax comes back in an order, between chance and the best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.truth.plants.deletion import deletion_curve, deletion_skill

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def table():
    values = np.random.default_rng(0).random(2**4)
    values[0], values[-1] = 1.0, 0.0
    return values


def areas(table):
    return {order: deletion_curve(table, order).mean() for order in itertools.permutations(range(4))}


def test_the_best_of_all_orders_scores_one_and_the_worst_least(table):
    found = areas(table)
    best, worst = max(found, key=found.get), min(found, key=found.get)
    effects = {NAMES[player]: -place for place, player in enumerate(best)}
    assert deletion_skill(table, effects, NAMES) == pytest.approx(1)
    effects = {NAMES[player]: -place for place, player in enumerate(worst)}
    assert deletion_skill(table, effects, NAMES) < 0


def test_orders_score_nought_on_average(table):
    skills = [
        deletion_skill(table, {NAMES[player]: -place for place, player in enumerate(order)}, NAMES)
        for order in itertools.permutations(range(4))
    ]
    assert np.mean(skills) == pytest.approx(0, abs=1e-12)


def test_a_curve_ends_where_all_is_undone(table):
    assert deletion_curve(table, [2, 0, 3, 1])[-1] == pytest.approx(1)


def test_a_game_in_which_no_order_matters_has_no_skill():
    flat = np.array([1.0, 0.5, 0.5, 0.0])
    assert np.isnan(deletion_skill(flat, {"a": 1.0}, ["a", "b"]))
