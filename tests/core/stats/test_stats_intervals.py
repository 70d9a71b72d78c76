"""Group-bootstrap intervals: axioms, an oracle, and their twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from taxlens.core.errors import UsageError
from taxlens.core.stats import intervals as stats

GROUPS = np.repeat(np.arange(20), 5)


def values(seed: int = 0, n: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_weights_of_every_draw_sum_to_the_number_of_groups_times_their_size():
    weights = stats.group_weights(GROUPS, draws=50, seed=3)
    assert weights.shape == (50, 100)
    assert np.all(weights.sum(axis=1) == 100)


def test_items_of_one_group_always_have_one_weight():
    weights = stats.group_weights(["a", "b", "a", "c"], draws=50)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert not np.array_equal(weights[:, 0], weights[:, 1])


def test_same_seed_gives_same_draws_and_another_seed_does_not():
    first = stats.group_weights(GROUPS, draws=20, seed=1)
    assert np.array_equal(first, stats.group_weights(GROUPS, draws=20, seed=1))
    assert not np.array_equal(first, stats.group_weights(GROUPS, draws=20, seed=2))


def test_interval_of_a_constant_has_width_zero_at_the_constant():
    interval = stats.mean_interval(np.full(100, 0.1), GROUPS)
    assert interval.low == interval.high == pytest.approx(0.1, abs=1e-16)


def test_interval_of_zeros_is_exactly_zero():
    interval = stats.mean_interval(np.zeros(100), GROUPS)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_interval_of_values_with_spread_has_width():
    interval = stats.mean_interval(values(), GROUPS)
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_agrees_with_scipy_where_every_item_is_its_own_group(method):
    sample = np.random.default_rng(5).exponential(size=200)
    ours = stats.mean_interval(sample, np.arange(200), draws=20_000, method=method)
    name = {"bca": "BCa", "percentile": "percentile"}[method]
    oracle = bootstrap((sample,), np.mean, n_resamples=20_000, method=name, rng=np.random.default_rng(0))
    width = oracle.confidence_interval.high - oracle.confidence_interval.low
    assert ours.low == pytest.approx(oracle.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(oracle.confidence_interval.high, abs=0.05 * width)


def test_group_effects_widen_the_interval_and_independent_items_do_not():
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(size=20), 5)
    grouped, single = stats.mean_interval(shared, GROUPS), stats.mean_interval(shared, np.arange(100))
    assert grouped.high - grouped.low > 1.8 * (single.high - single.low)
    noise = rng.normal(size=100)
    grouped, single = stats.mean_interval(noise, GROUPS), stats.mean_interval(noise, np.arange(100))
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.35)


def test_columns_are_resampled_together():
    sample = values()
    low, high = stats.sum_intervals(np.stack([sample, -sample, sample], axis=1), GROUPS)
    assert low[0] == low[2]
    assert high[0] == high[2]
    assert low[1] == pytest.approx(-high[0], abs=0.02)


def test_a_column_alone_equals_the_column_among_many():
    many = np.random.default_rng(1).normal(size=(100, 7))
    low, high = stats.sum_intervals(many, GROUPS)
    alone = stats.mean_interval(many[:, 4], GROUPS)
    assert (alone.low, alone.high) == pytest.approx((low[4], high[4]), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values(shift, scale):
    sample = values()
    plain = stats.mean_interval(sample, GROUPS, draws=300)
    moved = stats.mean_interval(sample * scale + shift, GROUPS, draws=300)
    assert moved.low == pytest.approx(plain.low * scale + shift, abs=1e-8)


def test_order_of_items_does_not_matter():
    order = np.random.default_rng(2).permutation(100)
    sample = values()
    first, second = stats.mean_interval(sample, GROUPS), stats.mean_interval(sample[order], GROUPS[order])
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


def test_ratio_of_proportional_columns_is_exact():
    sample = np.abs(values()) + 1
    interval = stats.ratio_interval(0.25 * sample, sample, GROUPS)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))


def test_ratio_over_a_denominator_of_uncertain_sign_is_unbounded():
    noise = values()
    interval = stats.ratio_interval(np.ones(100), noise - noise.mean() + 1e-3, GROUPS)
    assert (interval.low, interval.high) == (-np.inf, np.inf)


def test_ratio_over_zero_is_refused():
    with pytest.raises(UsageError, match="sums to 0"):
        stats.ratio_interval(np.ones(4), np.zeros(4), list("abcd"))


def test_group_means_weigh_groups_alike():
    assert stats.group_means(np.array([0.0, 0.0, 0.0, 1.0]), ["a", "a", "a", "b"]).tolist() == [0.0, 1.0]


def test_misaligned_values_are_refused_with_both_shapes():
    with pytest.raises(UsageError, match=r"values \(3,\), groups \(2,\)"):
        stats.mean_interval(np.zeros(3), ["a", "b"])


def test_values_that_are_not_finite_are_counted_in_the_error():
    with pytest.raises(UsageError, match="1 of 2 values are NaN or infinite"):
        stats.mean_interval(np.array([0.0, np.nan]), ["a", "b"])


def test_unknown_interval_method_lists_the_options():
    with pytest.raises(UsageError, match="bca"):
        stats.mean_interval(values(), GROUPS, method="bcaa")


def test_interval_prints_number_interval_and_n():
    text = str(stats.mean_interval(np.ones(4), list("abcd")))
    assert text == "1 [1, 1], n=4 in 4 groups"
