import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from taxlens.core.errors import UsageError
from taxlens.probes.kinds.class_means import fit_diff_of_means, fit_lda
from taxlens.probes.kinds.cross_validation import NestedFits, fit_once
from taxlens.probes.kinds.logistic import fit_logistic
from taxlens.probes.kinds.network import fit_network
from taxlens.probes.rows.folds import group_folds
from taxlens.probes.rows.labels import read_labels


def problem(n_classes=2, n=150, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y]
    return X, y, read_labels(y, groups=np.arange(n))


@pytest.mark.parametrize(("n", "d"), [(150, 6), (40, 60)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_coefficients_equal_scikit_learn(n, d, n_classes):
    X, y, _ = problem(n_classes, n, d)
    ours, offset = fit_logistic(X, y, n_classes=n_classes, penalty=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = LogisticRegression(C=0.5, solver="newton-cg", tol=1e-12, max_iter=1000).fit(X, y)
    theirs = oracle.coef_ - (oracle.coef_.mean(0) if n_classes > 2 else 0)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(offset, oracle.intercept_, atol=1e-5)


def test_logistic_of_separable_rows_stays_finite():
    X = np.r_[-np.ones((20, 2)), np.ones((20, 2))]
    coefficients, _ = fit_logistic(X, np.repeat([0, 1], 20), n_classes=2, penalty=1e-6)
    assert np.isfinite(coefficients).all()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_lda_equals_scikit_learn_at_the_same_shrinkage(n_classes):
    X, y, labels = problem(n_classes)
    ours, offset = fit_lda(X, labels, penalty=0.25)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(X, y)
    np.testing.assert_allclose(ours, oracle.coef_, atol=1e-8)
    np.testing.assert_allclose(offset, oracle.intercept_, atol=1e-8)


def test_lda_with_fewer_rows_than_dimensions_is_refused():
    X, _, labels = problem(n=40, d=60)
    with pytest.raises(UsageError, match=r"more rows than dimensions[\s\S]*training rows +40[\s\S]*ridge"):
        fit_lda(X, labels, penalty=0.1)


def test_difference_of_means_is_the_difference_of_means():
    X, y, labels = problem()
    coefficients, offset = fit_diff_of_means(X, labels)
    gap = X[y == 1].mean(0) - X[y == 0].mean(0)
    np.testing.assert_allclose(coefficients[0], gap)
    middle = (X[y == 1].mean(0) + X[y == 0].mean(0)) / 2
    np.testing.assert_allclose(coefficients @ middle + offset, 0, atol=1e-12)


def test_difference_of_means_for_numbers_is_a_least_squares_line():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1))
    y = 3 * X[:, 0] + 1 + 0.1 * rng.normal(size=200)
    coefficients, offset = fit_diff_of_means(X, read_labels(y, groups=np.arange(200)))
    np.testing.assert_allclose([coefficients[0, 0], offset[0]], np.polyfit(X[:, 0], y, 1), atol=1e-8)


def test_network_reads_an_xor_that_no_line_reads():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4))
    y = ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(int)
    labels = read_labels(y, groups=np.arange(600))
    train, test = np.arange(400), np.arange(400, 600)
    part = read_labels(y[train], groups=train)
    network = fit_network(X[train], part, penalty=1e-3, seed=0)
    line = fit_once("logistic", X[train], part, penalty=0.01)
    assert ((network(X[test])[:, 0] > 0) == labels.codes[test]).mean() > 0.85
    assert ((line(X[test])[:, 0] > 0) == labels.codes[test]).mean() < 0.65


def test_network_reads_numbers_and_many_classes():
    X, y, labels = problem(3)
    assert (fit_network(X, labels, penalty=1e-3, seed=0)(X).argmax(1) == y).mean() > 0.9
    values = read_labels(X[:, 0] ** 2, groups=np.arange(150))
    predicted = fit_network(X, values, penalty=1e-4, seed=0)(X)[:, 0]
    assert np.corrcoef(predicted, X[:, 0] ** 2)[0, 1] > 0.9


def test_network_is_the_same_for_the_same_seed():
    X, _, labels = problem()
    np.testing.assert_array_equal(
        fit_network(X, labels, penalty=1e-3, seed=1)(X), fit_network(X, labels, penalty=1e-3, seed=1)(X)
    )


@pytest.mark.parametrize("kind", ["logistic", "lda", "diff_of_means", "mlp"])
def test_nested_fits_read_test_rows_that_they_have_not_seen(kind):
    X, _, labels = problem(n=90, d=3)
    groups = np.arange(90) // 3
    folds = group_folds(groups, labels.strata(), n_folds=3)
    before = NestedFits(kind, X, [labels], folds, seed=0)
    changed = X.copy()
    changed[folds.of_row == 1] += 3.0
    after = NestedFits(kind, changed, [labels], folds, seed=0)
    np.testing.assert_allclose(after.read(1, X), before.read(1, X), atol=1e-6)
    training, scores = before.held_out(1, X)
    assert sorted(training) == np.flatnonzero(folds.of_row != 1).tolist()
    assert scores.shape == (len(training), 1)


@pytest.mark.parametrize("kind", ["logistic", "lda"])
def test_probes_of_classes_refuse_numbers(kind):
    X, _, _ = problem()
    with pytest.raises(UsageError, match=r"reads classes[\s\S]*ridge"):
        fit_once(kind, X, read_labels(X[:, 0], groups=np.arange(150)), penalty=0.1)
