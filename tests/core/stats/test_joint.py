"""Sums of suite means are resampled within suites: the mix of suites adds no width."""

import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.core.stats.ratios import joint_mean, joint_ratio

GROUPS = [np.array([f"a{i}" for i in range(20)], dtype=object), np.array([f"b{i}" for i in range(30)], dtype=object)]


def test_constant_suites_of_opposite_sign_have_no_width():
    found = joint_mean([np.full(20, 40.0), np.full(30, -30.0)], GROUPS)
    assert (found.value, found.low, found.high) == pytest.approx((10.0, 10.0, 10.0))
    assert (found.n_items, found.n_groups) == (50, 50)


def test_a_ratio_of_equal_columns_is_one_without_width():
    rng = np.random.default_rng(0)
    columns = [1 + rng.normal(size=20) ** 2, 1 + rng.normal(size=30) ** 2]
    found = joint_ratio(columns, columns, GROUPS)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_the_interval_of_one_suite_covers_its_mean_about_as_often_as_said():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = joint_mean([rng.normal(size=30)], GROUPS[1:], draws=300)
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_a_denominator_of_open_sign_has_no_finite_interval():
    rng = np.random.default_rng(2)
    found = joint_ratio([np.ones(30)], [rng.normal(size=30)], GROUPS[1:])
    assert np.isinf(found.low)
    assert np.isinf(found.high)
    with pytest.raises(UsageError, match="nothing to take a share of"):
        joint_ratio([np.ones(30)], [np.zeros(30)], GROUPS[1:])
