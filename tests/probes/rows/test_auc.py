import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from taxlens.core.stats.intervals import group_counts
from taxlens.probes.rows import auc as module
from taxlens.probes.rows.auc import FoldAuc


def data(n_groups=20, size=4, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y = rng.integers(0, 2, len(groups))
    scores = rng.normal(size=len(groups)) + 0.7 * y
    return y, groups, np.round(scores) if ties else scores


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_auc_of_one_fold_equals_scikit_learn(seed, ties):
    y, groups, scores = data(seed=seed, ties=ties)
    ours = FoldAuc(y, np.zeros(len(y), int), groups).values(scores)
    np.testing.assert_allclose(ours, roc_auc_score(y, scores), atol=1e-12)


def test_auc_over_folds_counts_pairs_of_the_same_fold_only():
    y, groups, scores = data()
    fold = groups % 3
    shifted = scores + 100.0 * fold
    auc = FoldAuc(y, fold, groups)
    np.testing.assert_allclose(auc.values(shifted), auc.values(scores))
    assert abs(roc_auc_score(y, shifted) - roc_auc_score(y, scores)) > 0.01


@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_draws_equal_the_auc_of_repeated_rows(ties):
    y, groups, scores = data(ties=ties)
    fold = groups % 2
    weights = group_counts(20, draws=10, seed=1)
    draws = FoldAuc(y, fold, groups).draws(scores, weights)
    for w, got in zip(weights.astype(int), draws, strict=True):
        rows = np.repeat(np.arange(len(y)), w[groups])
        above = pairs = 0.0
        for f in (0, 1):
            mine = rows[fold[rows] == f]
            n = (y[mine] == 1).sum() * (y[mine] == 0).sum()
            if n:
                above += n * roc_auc_score(y[mine], scores[mine])
                pairs += n
        np.testing.assert_allclose(got, above / pairs, atol=1e-12)


def test_linearised_draws_have_the_spread_of_exact_draws(monkeypatch):
    y, groups, scores = data(n_groups=300)
    auc = FoldAuc(y, groups % 5, groups)
    weights = group_counts(300, draws=2000, seed=0)
    exact = auc.draws(scores, weights)
    monkeypatch.setattr(module, "EXACT_GROUPS", 1)
    linear = auc.draws(scores, weights)
    assert np.corrcoef(exact, linear)[0, 1] > 0.98
    np.testing.assert_allclose(np.quantile(linear, [0.025, 0.975]), np.quantile(exact, [0.025, 0.975]), atol=3e-3)


def test_influence_is_the_change_of_the_auc_per_unit_of_a_groups_weight():
    y, groups, scores = data(ties=True)
    auc = FoldAuc(y, groups % 3, groups)
    nudged = 1.0 + 1e-6 * np.eye(20)
    np.testing.assert_allclose(
        (auc.draws(scores, nudged) - auc.values(scores)) / 1e-6, auc.influence(scores), atol=1e-5
    )


def test_many_score_vectors_give_the_same_as_one_by_one():
    y, groups, _ = data()
    scores = np.random.default_rng(0).normal(size=(6, 2, len(y)))
    scores[0, 0] = np.round(scores[0, 0])
    auc = FoldAuc(y, groups % 4, groups)
    np.testing.assert_allclose(auc.values(scores)[3, 1], auc.values(scores[3, 1]))
    np.testing.assert_allclose(auc.values(scores)[0, 0], auc.values(scores[0, 0]))


def test_auc_is_undefined_where_no_fold_holds_both_classes():
    auc = FoldAuc(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.arange(4))
    assert np.isnan(auc.values(np.arange(4.0)))


def test_reversed_scores_give_one_minus_the_auc():
    y, groups, scores = data()
    auc = FoldAuc(y, groups % 4, groups)
    np.testing.assert_allclose(auc.values(-scores), 1 - auc.values(scores))
