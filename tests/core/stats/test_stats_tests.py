"""Paired tests against their definitions and against independent codes."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from taxlens.core.errors import UsageError
from taxlens.core.stats import intervals as stats


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (5, 0), (10, 3), (3, 10), (40, 41)])
def test_mcnemar_is_the_exact_binomial_test_of_changed_items(lost, won):
    expected = 1.0 if lost + won == 0 else binomtest(min(lost, won), lost + won).pvalue
    assert stats.mcnemar_exact(lost, won) == pytest.approx(expected)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(UsageError, match="cannot be negative"):
        stats.mcnemar_exact(-1, 2)


def test_sign_flip_enumerates_small_numbers_of_groups():
    assert stats.sign_flip_p(np.ones(4), list("abcd")) == 2 / 16
    assert stats.sign_flip_p(np.ones(4), list("aaaa")) == 1.0


def test_sign_flip_of_many_groups_is_close_to_the_t_test():
    sample = np.random.default_rng(0).normal(0.2, 1, size=100)
    assert stats.sign_flip_p(sample, np.arange(100)) == pytest.approx(ttest_1samp(sample, 0).pvalue, abs=0.01)


def test_sign_flip_of_no_difference_is_one():
    assert stats.sign_flip_p(np.zeros(50), np.arange(50)) == 1.0


def test_cluster_error_of_single_items_is_the_ordinary_one():
    sample = np.random.default_rng(1).normal(size=30)
    assert stats.cluster_standard_error(sample, np.arange(30)) == pytest.approx(sample.std(ddof=1) / np.sqrt(30))


def test_cluster_error_counts_copies_of_an_item_once():
    sample = np.random.default_rng(1).normal(size=30)
    copied = stats.cluster_standard_error(np.repeat(sample, 4), np.repeat(np.arange(30), 4))
    assert copied == pytest.approx(stats.cluster_standard_error(sample, np.arange(30)))


def test_equivalence_is_claimed_for_a_tight_null_and_not_for_a_wide_one():
    rng = np.random.default_rng(2)
    assert stats.tost_p(rng.normal(0, 0.01, 100), np.arange(100), 0.02) < 0.01
    assert stats.tost_p(rng.normal(0, 1.0, 100), np.arange(100), 0.02) > 0.4


def test_equivalence_agrees_with_two_t_tests():
    sample = np.random.default_rng(3).normal(0.01, 0.1, 50)
    low = ttest_1samp(sample, -0.05, alternative="greater").pvalue
    high = ttest_1samp(sample, 0.05, alternative="less").pvalue
    assert stats.tost_p(sample, np.arange(50), 0.05) == pytest.approx(max(low, high))


def test_equivalence_is_never_claimed_beyond_the_margin():
    assert stats.tost_p(np.full(10, 0.03), np.arange(10), 0.02) == 1.0
    assert stats.tost_p(np.zeros(10), ["one"] * 10, 0.02) == 1.0


def test_margin_must_be_positive():
    with pytest.raises(UsageError, match="margin"):
        stats.tost_p(np.zeros(4), list("abcd"), 0)


def test_holm_matches_a_hand_computed_table():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_missing_tests_out_of_the_count():
    assert stats.holm([0.01, np.nan]).tolist()[0] == 0.01
    assert np.isnan(stats.holm([0.01, np.nan])[1])


def test_tests_refuse_misaligned_groups():
    with pytest.raises(UsageError, match="aligned"):
        stats.sign_flip_p(np.zeros(3), ["a", "b"])


def test_sign_flip_of_single_items_is_mcnemar():
    loss = np.r_[np.ones(20), -np.ones(7), np.zeros(100)]
    assert stats.sign_flip_p(loss, np.arange(127)) == stats.mcnemar_exact(20, 7)


def test_sign_flip_of_items_that_flip_together_is_not_mcnemar():
    loss = np.r_[np.ones(20), -np.ones(8), np.zeros(20)]
    grouped = stats.sign_flip_p(loss, np.arange(48) // 4)
    assert grouped == stats.mcnemar_exact(5, 2) > stats.mcnemar_exact(20, 8)


def test_groups_that_did_not_change_do_not_move_the_sign_flip():
    loss = np.array([3.0, 1.0, 2.0, -1.0])
    more = np.r_[loss, np.zeros(30)]
    assert stats.sign_flip_p(loss, np.arange(4)) == stats.sign_flip_p(more, np.arange(34))
    assert stats.sign_flip_p(np.zeros(5), np.arange(5)) == 1.0
