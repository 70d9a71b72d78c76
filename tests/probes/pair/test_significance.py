import numpy as np
import pytest
from scipy import stats

from taxlens.core.errors import UsageError
from taxlens.probes.pair.significance import (
    adjust,
    choose_test,
    corrected_t,
    equivalence_p,
    groups_needed,
    max_t,
    permutation_p,
)


def test_permutation_p_counts_the_observed_draw():
    assert permutation_p(5.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.ones(99)) == 1.0
    assert permutation_p(-5.0, np.zeros(99)) == 0.01


def test_max_t_of_one_statistic_is_its_permutation_p():
    null = np.random.default_rng(0).normal(size=199)
    assert max_t(np.array([1.3]), null[:, None])[0] == permutation_p(1.3, null)


def test_max_t_keeps_the_family_wise_error_and_single_tests_do_not():
    rng = np.random.default_rng(0)
    family, single = [], []
    for _ in range(300):
        draws = 0.9 * rng.normal(size=(200, 1)) + 0.4 * rng.normal(size=(200, 24))
        family.append(max_t(draws[0], draws[1:]).min() <= 0.05)
        single.append(min(permutation_p(draws[0, i], draws[1:, i]) for i in range(24)) <= 0.05)
    assert np.mean(family) <= 0.09
    assert np.mean(single) > np.mean(family)


def test_max_t_is_not_masked_by_a_noisy_statistic():
    null = np.random.default_rng(0).normal(size=(999, 2)) * [0.01, 10.0]
    assert max_t(np.array([0.06, 3.0]), null)[0] == 0.001


def test_step_down_adjusted_p_are_ordered_as_the_statistics_and_at_least_single_p():
    null = np.random.default_rng(1).normal(size=(499, 6))
    observed = np.array([0.3, 3.5, 1.0, 2.2, 0.1, 2.9])
    adjusted = max_t(observed, null)
    size = observed / np.sqrt((np.vstack([observed, null]) ** 2).mean(0))
    assert (np.diff(adjusted[np.argsort(-size)]) >= 0).all()
    assert (adjusted >= [permutation_p(o, null[:, i]) - 1e-12 for i, o in enumerate(observed)]).all()


def test_mismatched_statistics_are_refused():
    with pytest.raises(UsageError, match="do not match"):
        max_t(np.zeros(3), np.zeros((9, 4)))


def test_corrected_t_is_the_plain_t_with_the_larger_variance():
    d = np.random.default_rng(0).normal(0.1, 0.2, size=50)
    t, p = corrected_t(d, n_folds=5)
    plain = stats.ttest_1samp(d, 0).statistic
    np.testing.assert_allclose(t, plain * np.sqrt((1 / 50) / (1 / 50 + 1 / 4)))
    np.testing.assert_allclose(p, 2 * stats.t.sf(abs(t), 49))


def test_corrected_t_of_constant_differences_is_certain():
    assert corrected_t(np.zeros(10), n_folds=5) == (0.0, 1.0)
    assert corrected_t(np.ones(10), n_folds=5)[1] == 0.0
    with pytest.raises(UsageError, match="two differences"):
        corrected_t(np.ones(1), n_folds=5)


def test_no_loss_is_claimed_for_a_tight_zero_and_not_for_a_wide_one_or_a_real_drop():
    rng = np.random.default_rng(0)
    assert equivalence_p(0.0, 0.004 * rng.normal(size=2000)) < 0.01
    assert equivalence_p(0.0, 0.03 * rng.normal(size=2000)) > 0.05
    assert equivalence_p(0.05, 0.05 + 0.004 * rng.normal(size=2000)) > 0.99
    assert equivalence_p(0.0, np.zeros(10)) == 0.0
    assert equivalence_p(0.5, np.zeros(10)) == 1.0


def test_groups_needed_gives_the_asked_power():
    rng = np.random.default_rng(0)
    need = groups_needed(0.02, 150, drop=0.03)
    spread = 0.02 * np.sqrt(150 / need)
    found = np.abs(rng.normal(0.03, spread, size=20_000)) > 1.96 * spread
    assert abs(found.mean() - 0.8) < 0.02
    assert groups_needed(0.02, 150, drop=0.03, tests=24) > need
    with pytest.raises(UsageError, match="positive"):
        groups_needed(0.02, 150, drop=0.0)


def test_drifted_pairs_get_the_corrected_t():
    assert choose_test(0.95, "auto") == "swap"
    assert choose_test(0.7, "auto") == "corrected_t"
    assert choose_test(0.7, "swap") == "swap"
    with pytest.raises(UsageError, match="auto, swap, corrected_t"):
        choose_test(1.0, "t")


def test_a_family_of_both_tests_is_bounded_by_doubling():
    null = np.random.default_rng(0).normal(size=(99, 2))
    p = adjust(["swap", "corrected_t"], np.array([9.0, 5.0]), null, np.array([0.01, 0.004]))
    np.testing.assert_allclose(p, [0.02, 0.008])
    alone = adjust(["swap", "none"], np.array([9.0, 0.0]), null, np.array([0.01, np.nan]))
    assert alone[0] == 0.01
    assert np.isnan(alone[1])
