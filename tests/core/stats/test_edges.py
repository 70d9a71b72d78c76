"""Statistics at the edge: one group, no spread, rounding; each says how little it knows."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.core.stats.intervals import (
    group_weights,
    mean_interval,
    ratio_interval,
    sum_intervals,
    tost_p,
)
from taxlens.core.stats.ratios import joint_mean, joint_ratio
from taxlens.core.stats.rounding import around_zero, is_rounding, share_of
from taxlens.core.stats.tails import tails

ONE, MANY = ["a"] * 8, list("aabbccdd")
VALUES = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0])


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_one_group_has_no_interval_and_several_have(method):
    assert np.isnan(sum_intervals(np.column_stack([VALUES, VALUES * 0]), ONE, method=method)).all()
    found = mean_interval(VALUES, ONE, method=method)
    assert found.value == VALUES.mean()
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes(0.0)
    assert "one group: no interval" in str(found)
    several = mean_interval(VALUES, MANY, method=method)
    assert several.low < several.value < several.high
    assert several.excludes(0.0)
    assert "one group" not in str(several)


def test_every_kind_of_interval_knows_nothing_of_one_group():
    groups = [np.array(ONE), np.array(MANY)]
    found = [
        ratio_interval(VALUES, VALUES + 1, ONE),
        joint_mean([VALUES, VALUES], groups),
        joint_ratio([VALUES, VALUES], [VALUES + 1, VALUES], groups),
        joint_ratio([VALUES, VALUES], [VALUES - 5, VALUES * 0.01], groups),
    ]
    assert np.isnan([(one.low, one.high) for one in found]).all()
    assert np.isfinite([one.value for one in found]).all()


def test_equivalence_of_unchanged_groups_rests_on_how_many_there_are():
    """(1 - .02)^G: the chance that G groups are all of the unchanged kind when the mean is at the margin."""
    few, many = (tost_p(np.zeros(n), range(n), 0.02) for n in (4, 200))
    assert few == pytest.approx(0.98**4)
    assert many == pytest.approx(0.98**200)
    assert many < 0.05 < few
    assert tost_p(np.full(50, 0.01), range(50), 0.02) > tost_p(np.zeros(50), range(50), 0.02)
    assert tost_p(np.full(50, 0.03), range(50), 0.02) == 1.0
    assert tost_p(np.zeros(500), range(500), 0.02, bound=None) == 1.0
    assert tost_p(np.full(3, 1e-9) + np.array([0, 1e-10, 0]), range(3), 0.02) == pytest.approx(0.98**3, abs=1e-6)


def test_the_bound_covers_the_worst_mixture():
    """At a mean of exactly the margin, the claim is made in at most a share p of samples."""
    rng, margin, groups = np.random.default_rng(0), 0.1, 20
    lost = rng.random((20_000, groups)) < margin  # a tenth of the groups lose everything, the others nothing
    unchanged = ~lost.any(axis=1)
    claimed = tost_p(np.zeros(groups), range(groups), margin)
    assert unchanged.mean() == pytest.approx(claimed, abs=0.01)


def test_shares_of_rounding_are_not_numbers():
    assert np.isnan(share_of(np.array([1e-9, 1.0]), 3e-7)).all()
    assert share_of(np.array([0.1, -0.2]), 0.4).tolist() == [0.25, -0.5]
    assert share_of(0.1, -0.4) == -0.25
    assert is_rounding(0.0)
    assert not is_rounding(-1e-3)


def test_intervals_of_rounding_hold_zero_and_others_stay():
    low, high = around_zero(
        np.array([1e-10, -1e-10, 0.2]), np.array([9e-11, -2e-10, 0.1]), np.array([2e-10, -1e-11, 0.3])
    )
    assert (low <= 0).tolist() == [True, True, False]
    assert (high >= 0).all()
    assert (low[2], high[2]) == (0.1, 0.3)
    assert np.isnan(around_zero(np.array([0.0]), np.array([np.nan]), np.array([np.nan]))).all()


def test_joint_intervals_of_one_suite_are_those_of_its_own_items():
    """One home of tails: a sum over one suite is its mean, a ratio over one suite its ratio."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 4)
    x = rng.normal(size=48) + np.where(groups == 3, 6.0, 0.0)  # one group carries most of the spread
    y = 2.0 + rng.normal(size=48) * 0.1
    for joint, alone in (
        (joint_mean([x], [groups], seed=5), mean_interval(x, groups, seed=5)),
        (joint_ratio([x], [y], [groups], seed=5), ratio_interval(x, y, groups, seed=5)),
    ):
        assert joint.value == pytest.approx(alone.value)
        assert (joint.low, joint.high) == pytest.approx((alone.low, alone.high), rel=1e-9)


def test_joint_intervals_widen_for_few_groups():
    """Against the plain quantiles of the same draws: 5 groups are read far further out, 400 hardly."""
    rng = np.random.default_rng(4)
    wider = {}
    for count in (5, 400):
        groups = np.arange(count)
        x = rng.normal(size=count)
        found = joint_mean([x], [groups], draws=4000, seed=1)
        weights = group_weights(groups, draws=4000, seed=1)
        plain = np.quantile((weights @ x) / weights.sum(axis=1), [0.025, 0.975])
        wider[count] = (found.high - found.low) / (plain[1] - plain[0])
    assert wider[5] > 1.3
    assert wider[400] == pytest.approx(1.0, abs=0.05)


def test_joint_ratio_leaves_out_draws_whose_denominator_has_the_other_sign():
    """One group turns the denominator in a tenth of the draws: kept, they would pull the lower end far down."""
    groups = np.arange(12)
    denominator = np.array([1.0] * 11 + [-4.2]) + 0.01 * groups
    numerator = 0.5 + 0.01 * groups
    found = joint_ratio([numerator], [denominator], [groups], draws=5000, seed=0, level=0.5)
    weights = group_weights(groups, draws=5000, seed=0)
    above, below = weights @ numerator, weights @ denominator
    assert 0.02 < (below <= 0).mean() < 0.2
    ratio = numerator.sum() / denominator.sum()
    tail = tails((numerator - ratio * denominator)[:, None], 0.5)[0]
    kept = (above / below)[below > 0]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(kept, [tail, 1 - tail])))
    assert abs(found.low - np.quantile(above / below, tail)) > 1e-3
