import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier

from taxlens.probes.kinds.crossfit import RidgeFits, whole_groups
from taxlens.probes.kinds.ridge import (
    PENALTIES,
    FoldMoments,
    RidgeSpectrum,
    left_out_reading,
    left_out_residuals,
    same_size_groups,
)
from taxlens.probes.rows.folds import group_folds


def problem(n_groups=40, size=5, d=12, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y = rng.integers(0, 2, n_groups)[groups]
    X = rng.normal(size=(len(groups), d)) @ np.diag(np.linspace(0.2, 3, d)) + 2.0
    X[:, 0] += 0.8 * y
    return X, y, groups


@pytest.mark.parametrize("d", [12, 250])
def test_coefficients_and_predictions_equal_scikit_learn_on_the_same_folds(d):
    X, y, groups = problem(d=d)
    folds = group_folds(groups, y)
    fits = RidgeFits(X, [np.where(y, 1.0, -1.0)[:, None]], folds, penalties=PENALTIES, seed=0)
    for fold, (train, test) in enumerate(folds):
        unit = ((X[train] - X[train].mean(0)) ** 2).sum() / d
        oracle = RidgeClassifier(alpha=fits.penalty[fold, 0] * unit).fit(X[train], y[train])
        np.testing.assert_allclose(fits.coefficients[fold, 0], oracle.coef_.ravel(), atol=1e-6)
        np.testing.assert_allclose(fits.intercepts[fold], oracle.intercept_, atol=1e-6)
        np.testing.assert_array_equal(fits.read(fold, X[test])[:, 0] > 0, oracle.predict(X[test]) == 1)


@pytest.mark.parametrize("d", [12, 250])
@pytest.mark.parametrize("largest", [128, 2])
def test_closed_form_left_out_residuals_equal_refitting_without_the_group(d, largest, monkeypatch):
    monkeypatch.setattr("taxlens.probes.kinds.ridge._SOLVE_BY_ROWS", largest)
    X, y, groups = problem(d=d)
    targets = np.stack([np.where(y, 1.0, -1.0), X[:, 1] ** 2], axis=1)
    spectrum = RidgeSpectrum.from_rows(X, targets)
    if d == 12:
        spectrum = FoldMoments.from_rows(X, targets, np.zeros(len(X), int), 1).training([0])
    penalties = np.array([1e-3, 0.1, 10.0])
    got = left_out_residuals(spectrum, spectrum.project(X), targets, groups, penalties=penalties)
    for i, penalty in enumerate(penalties):
        for group in (0, 17, 39):
            out = groups == group
            oracle = Ridge(alpha=penalty * spectrum.unit).fit(X[~out], targets[~out])
            np.testing.assert_allclose(got[i, out], targets[out] - oracle.predict(X[out]), atol=1e-7)


def test_closed_form_left_out_reading_of_the_other_model_equals_refitting():
    X, y, groups = problem()
    Y = X @ np.random.default_rng(1).normal(size=(12, 12))
    targets = np.where(y, 1.0, -1.0)[:, None]
    spectrum = RidgeSpectrum.from_rows(X, targets)
    got = left_out_reading(spectrum, spectrum.project(X), targets, groups, read=spectrum.project(Y), penalty=0.1)
    for group in (0, 25):
        out = groups == group
        oracle = Ridge(alpha=0.1 * spectrum.unit).fit(X[~out], targets[~out])
        np.testing.assert_allclose(got[out], oracle.predict(Y[out]).reshape(-1, 1), atol=1e-8)


def test_the_penalty_is_that_of_least_left_out_error_inside_the_training_part():
    X, y, groups = problem()
    folds = group_folds(groups, y)
    targets = np.where(y, 1.0, -1.0)[:, None]
    fits = RidgeFits(X, [targets], folds, penalties=PENALTIES, seed=0)
    train = np.flatnonzero(folds.of_row != 0)
    unit = ((X[train] - X[train].mean(0)) ** 2).sum() / X.shape[1]
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for group in np.unique(groups[train]):
            inner, out = train[groups[train] != group], train[groups[train] == group]
            oracle = Ridge(alpha=penalty * unit).fit(X[inner], targets[inner])
            error += ((targets[out] - oracle.predict(X[out]).reshape(-1, 1)) ** 2).sum()
        errors.append(error)
    assert fits.penalty[0, 0] == PENALTIES[int(np.argmin(errors))]


def test_test_rows_play_no_part_in_their_fold():
    X, y, groups = problem()
    folds = group_folds(groups, y)
    targets = [np.where(y, 1.0, -1.0)[:, None]]
    before = RidgeFits(X, targets, folds, penalties=PENALTIES, seed=0)
    changed = X.copy()
    changed[folds.of_row == 2] += 7.0
    after = RidgeFits(changed, targets, folds, penalties=PENALTIES, seed=0)
    np.testing.assert_allclose(after.coefficients[2], before.coefficients[2], atol=1e-9)
    assert not np.allclose(after.coefficients[1], before.coefficients[1])


def test_several_labels_give_the_same_as_one_by_one():
    X, y, groups = problem()
    folds = group_folds(groups, y)
    one, two = np.where(y, 1.0, -1.0)[:, None], X[:, :2] ** 2
    both = RidgeFits(X, [one, two], folds, penalties=PENALTIES, seed=0)
    alone = RidgeFits(X, [two], folds, penalties=PENALTIES, seed=0)
    np.testing.assert_allclose(both.coefficients[:, both.blocks[1]], alone.coefficients, atol=1e-12)
    np.testing.assert_array_equal(both.penalty[:, 1], alone.penalty[:, 0])


def test_large_data_choose_their_penalty_on_whole_groups():
    groups = np.repeat(np.arange(100), 30)
    rows = whole_groups(groups, np.arange(3000), most=300, seed=0)
    assert 300 <= len(rows) < 400
    assert all((groups[rows] == g).sum() == 30 for g in np.unique(groups[rows]))
    few = whole_groups(np.repeat(np.arange(20), 150), np.arange(3000), most=300, seed=0)
    assert len(few) == 8 * 150


def test_groups_of_the_same_size_are_batched_once():
    batches = same_size_groups(np.array([3, 1, 3, 2, 1, 9]))
    assert [batch.shape for batch in batches] == [(2, 1), (2, 2)]
    assert sorted(np.concatenate([batch.ravel() for batch in batches])) == list(range(6))


def test_one_factorisation_gives_what_the_eigendecomposition_gives():
    rng = np.random.default_rng(3)
    X, targets = rng.normal(size=(90, 12)) * np.arange(1, 13), rng.normal(size=(90, 2))
    moments = FoldMoments.from_rows(X, targets, np.arange(90) % 3, 3)
    for penalty in (1e-6, 0.1, 100.0):
        slow = moments.training([0, 2]).coefficients(np.full(2, penalty))
        fast = moments.solve([0, 2], penalty=penalty)
        np.testing.assert_allclose(fast[0], slow[0], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(fast[1], slow[1], rtol=1e-8, atol=1e-10)
