import numpy as np
import pytest
from sklearn.linear_model import Ridge

from taxlens.probes.pair.significance import corrected_t, max_t, permutation_p
from taxlens.probes.pair.swap import fold_differences, group_flips, row_cosine, shared_basis, swap_layer
from taxlens.probes.rows.auc import FoldAuc
from taxlens.probes.rows.folds import group_folds
from taxlens.probes.rows.labels import read_labels


def pair(seed=0, n_groups=30, size=3, d=5, loss=0.0, noise=0.3, layers=1):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y = rng.permutation(np.arange(n_groups) % 2)[groups]
    H = 0.7 * rng.normal(size=(n_groups, d))[groups] + rng.normal(size=(len(y), d))
    H[:, 0] += 1.2 * y
    out = []
    for _ in range(layers):
        X, Y = (H + noise * rng.normal(size=H.shape) for _ in range(2))
        Y[:, 0] -= loss * 1.2 * y
        out.append((X, Y))
    return out, y, groups


def prepared(y, groups, seed=0):
    labels = read_labels(y, groups=groups)
    return labels, group_folds(groups, labels.strata(), seed=seed)


def test_a_swap_equals_refitting_both_probes_on_the_swapped_rows():
    [(X, Y)], y, groups = pair()
    labels, folds = prepared(y, groups)
    flips = group_flips(groups, permutations=3, seed=0)
    swapped = swap_layer(X, Y, labels, folds, flips=flips, penalty=2.0)
    target = np.where(y, 1.0, -1.0)
    auc = FoldAuc(y, folds.of_row, folds.groups)
    for flip, got in zip(np.vstack([np.zeros(30, bool), flips]), [swapped.observed, *swapped.null], strict=True):
        mine = flip[groups][:, None]
        sides = np.where(mine, Y, X), np.where(mine, X, Y)
        values = []
        for Z in sides:
            scores = np.empty(len(y))
            for train, test in folds:
                scores[test] = Ridge(alpha=2.0).fit(Z[train], target[train]).predict(Z[test])
            values.append(float(auc.values(scores)))
        np.testing.assert_allclose(got, values[0] - values[1], atol=1e-9)


def test_numbers_and_many_classes_are_swapped_too():
    [(X, Y)], _, groups = pair()
    for y in (X[:, 0] + Y[:, 1], np.arange(90) % 3):
        labels, folds = prepared(y, groups)
        result = swap_layer(X, X, labels, folds, flips=group_flips(groups, permutations=4, seed=0), penalty=1.0)
        assert result.observed == 0
        np.testing.assert_allclose(result.null, 0, atol=1e-12)


def test_flips_of_a_group_depend_on_its_name_and_the_seed_alone():
    wide = group_flips(["a", "b", "c", "d"], permutations=50, seed=0)
    narrow = group_flips(["d", "b", "b"], permutations=50, seed=0)
    np.testing.assert_array_equal(narrow, wide[:, [1, 3]])
    assert (group_flips(["b"], permutations=50, seed=1)[:, 0] != narrow[:, 0]).any()
    assert 0.3 < wide.mean() < 0.7


def test_the_shared_basis_is_blind_to_which_model_a_row_came_from():
    [(X, Y)], _, _ = pair()
    one, two = shared_basis(X, Y, 3), shared_basis(Y, X, 3)
    np.testing.assert_allclose(one @ one.T, two @ two.T, atol=1e-9)
    wide = np.random.default_rng(0).normal(size=(8, 40))
    basis = shared_basis(wide, wide + 1, 64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-9)


def test_row_cosine_is_one_for_the_same_rows_and_small_for_turned_ones():
    [(X, Y)], _, _ = pair()
    assert row_cosine(X, X + 5) == pytest.approx(1.0)
    assert row_cosine(X, -X) == pytest.approx(-1.0)
    assert 0.9 < row_cosine(X, Y) < 1.0
    assert row_cosine(np.ones((4, 2)), np.ones((4, 2))) == 1.0


def test_a_planted_loss_is_found_and_a_relabelling_is_not():
    [(X, Y)], y, groups = pair(n_groups=60, loss=0.9)
    labels, folds = prepared(y, groups)
    flips = group_flips(groups, permutations=99, seed=0)
    lost = swap_layer(X, Y, labels, folds, flips=flips, penalty=1.0)
    assert permutation_p(lost.observed, lost.null) == 0.01
    same = swap_layer(X, X, labels, folds, flips=flips, penalty=1.0)
    assert permutation_p(same.observed, same.null) == 1.0


def rejections(simulations, layers, permutations, loss=0.0, n_groups=30):
    single, family, spread = [], [], []
    for seed in range(simulations):
        data, y, groups = pair(seed, layers=layers, loss=loss, n_groups=n_groups)
        labels, folds = prepared(y, groups, seed)
        flips = group_flips(groups, permutations=permutations, seed=seed)
        results = [swap_layer(X, Y, labels, folds, flips=flips, penalty=1.0) for X, Y in data]
        observed, null = np.array([r.observed for r in results]), np.stack([r.null for r in results], axis=1)
        single.append(permutation_p(observed[0], null[:, 0]) <= 0.05)
        family.append(max_t(observed, null).min() <= 0.05)
        spread.append(observed[0])
    return np.mean(single), np.mean(family)


def test_two_noisy_copies_of_one_model_are_rarely_told_apart():
    single, family = rejections(60, 2, 39)
    assert single <= 0.13
    assert family <= 0.13


def test_a_drop_is_found_where_there_is_one():
    assert rejections(12, 1, 39, loss=0.6, n_groups=100)[0] >= 0.8


@pytest.mark.slow
def test_rejections_at_the_nominal_level_over_500_simulations():
    single, family = rejections(500, 24, 199)
    assert 0.03 <= single <= 0.07
    assert family <= 0.07


def test_the_corrected_t_of_fold_differences_does_not_reject_a_rotated_copy():
    [(X, _)], y, groups = pair(n_groups=60)
    labels, folds = prepared(y, groups)
    turned = X @ np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    same = fold_differences(X, turned, labels, folds, penalty=(1.0, 1.0), repeats=4, seed=0)
    assert len(same) == 20
    np.testing.assert_allclose(same, 0, atol=1e-9)
    gone = turned.copy()
    gone[:] = np.random.default_rng(1).normal(size=gone.shape)
    lost = fold_differences(X, gone, labels, folds, penalty=(1.0, 1.0), repeats=4, seed=0)
    assert corrected_t(lost, n_folds=5)[1] < 0.05
