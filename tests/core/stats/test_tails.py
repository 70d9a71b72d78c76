"""Where interval ends are read: wider where few groups carry the variance, never narrower than normal."""

import numpy as np
import pytest
from scipy.special import ndtr, stdtrit

from taxlens.core.stats import intervals as stats
from taxlens.core.stats.tails import degrees_of_freedom, tails, welch_tail


def test_even_deviations_have_all_degrees_and_one_group_alone_has_two():
    even = np.tile([1.0, -1.0], 20)
    alone = np.r_[1.0, np.zeros(39)]
    assert degrees_of_freedom(np.stack([even, alone], 1)).tolist() == pytest.approx([39.0, 2.0], abs=0.2)


def test_normal_deviations_keep_nearly_all_degrees():
    found = degrees_of_freedom(np.random.default_rng(0).normal(size=(200, 50)))
    assert np.median(found) > 150
    assert found.max() <= 199


def test_tails_are_students_widened_for_the_number_of_groups():
    even = np.tile([1.0, -1.0], 10)[:, None]
    assert tails(even, 0.95)[0] == pytest.approx(ndtr(stdtrit(19, 0.025) * np.sqrt(20 / 19)))


def test_a_column_without_spread_and_a_single_group_have_a_tail():
    assert tails(np.zeros((30, 1)), 0.95)[0] == pytest.approx(ndtr(stdtrit(29, 0.025) * np.sqrt(30 / 29)))
    assert tails(np.zeros((1, 2)), 0.9).tolist() == pytest.approx([0.05, 0.05])


def test_a_sparse_column_gets_a_wider_interval_than_an_even_one_of_the_same_variance():
    groups = np.arange(40)
    sparse = np.r_[2.0, -2.0, np.zeros(38)]
    even = np.tile([1.0, -1.0], 20) * np.sqrt(8 / 40)
    low, high = stats.sum_intervals(np.stack([sparse, even], 1), groups)
    assert (high - low)[0] > 1.2 * (high - low)[1]


def test_difference_of_two_like_sets_has_more_degrees_than_either():
    one, two = np.random.default_rng(0).normal(size=(2, 8))
    alone = tails((one - one.mean())[:, None], 0.95)[0]
    assert welch_tail([one - one.mean(), two - two.mean()], 0.95) > alone
    assert welch_tail([np.zeros(1), np.zeros(1)], 0.95) == pytest.approx(0.025)
