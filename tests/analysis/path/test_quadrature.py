"""Nested rules integrate polynomials exactly, contain one another, and interpolate."""

import itertools

import numpy as np
import pytest

from taxlens.analysis.path.quadrature import (
    LADDER,
    Trajectory,
    companion,
    cumulative,
    gauss_patterson,
    interpolation,
    panelled,
    single,
    through,
)
from taxlens.core.errors import UsageError


@pytest.mark.parametrize(("size", "degree"), [(1, 1), (3, 5), (7, 11), (15, 23), (31, 47)])
def test_rule_is_exact_up_to_its_degree(size, degree):
    rule = gauss_patterson(size)
    for power in range(degree + 1):
        assert rule.weights() @ rule.nodes**power == pytest.approx(1 / (power + 1), abs=1e-14)


@pytest.mark.parametrize(("size", "degree"), [(1, 1), (3, 5), (7, 11)])
def test_rule_is_not_exact_beyond_its_degree(size, degree):
    rule = gauss_patterson(size)
    assert abs(rule.weights() @ rule.nodes ** (degree + 1) - 1 / (degree + 2)) > 1e-9


def test_each_rule_contains_the_one_before():
    for small, large in itertools.pairwise(LADDER):
        assert set(gauss_patterson(small).nodes) <= set(gauss_patterson(large).nodes)


@pytest.mark.parametrize(("size", "count"), [(7, 5), (15, 11), (31, 23)])
def test_a_companion_lies_between_a_rule_and_the_one_before(size, count):
    rule, before = gauss_patterson(size), gauss_patterson((size - 1) // 2)
    inner = companion(rule)
    assert len(inner.nodes) == count
    assert set(before.nodes) < set(inner.nodes) < set(rule.nodes)
    assert inner.nodes == pytest.approx(1 - inner.nodes[::-1])
    swing = np.abs(inner.panels[0].basis(np.linspace(0, 1, 201))).sum(axis=0).max()
    assert swing < 30


def test_other_rules_have_no_companion():
    assert companion(gauss_patterson(3)) is None
    assert companion(panelled(7, [0.0, 0.5, 1.0])) is None


def test_all_weights_are_positive_and_sum_to_one():
    for size in LADDER:
        weights = gauss_patterson(size).weights()
        assert (weights > 0).all()
        assert weights.sum() == pytest.approx(1)


def test_interpolation_goes_through_the_nodes_and_reproduces_polynomials():
    rule = gauss_patterson(7)
    assert interpolation(rule, rule.nodes) == pytest.approx(np.eye(7), abs=1e-12)
    t = np.linspace(0, 1, 33)
    assert rule.nodes**6 @ interpolation(rule, t) == pytest.approx(t**6, abs=1e-12)


def test_cumulative_is_the_integral_of_interpolation_also_over_panels():
    rule = panelled(7, [0.0, 0.3, 1.0])
    t = np.array([0.0, 0.1, 0.3, 0.65, 1.0])
    assert rule.nodes**4 @ cumulative(rule, t) == pytest.approx(t**5 / 5, abs=1e-13)
    assert rule.weights().sum() == pytest.approx(1)


def test_trajectory_follows_an_analytic_function():
    rule = gauss_patterson(15)
    path = Trajectory(rule, np.array([1.0]), 3 * np.exp(3 * rule.nodes)[:, None])
    t = np.linspace(0, 1, 11)
    assert path.at(t)[:, 0] == pytest.approx(np.exp(3 * t), abs=1e-12)
    assert path.slope(t)[:, 0] == pytest.approx(3 * np.exp(3 * t), abs=1e-10)


def test_single_node_takes_its_slope_for_the_whole_path():
    assert single(1.0).weights() == pytest.approx([1.0])


def test_unknown_size_is_refused_with_the_sizes():
    with pytest.raises(UsageError, match=r"no nested rule of this size\.[\s\S]*\(3, 7, 15, 31\)"):
        gauss_patterson(5)


def test_equal_nodes_are_refused():
    with pytest.raises(UsageError, match=r"nodes must be distinct"):
        through([0.2, 0.2])
