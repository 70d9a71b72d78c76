import numpy as np
import scipy.linalg

from taxlens.probes.kinds.ridge import RidgeSpectrum
from taxlens.probes.pair.leace import Leace
from taxlens.probes.rows.moments import PairMoments


def problem(seed=0, n=500, d=7):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2.0 * np.outer(y, rng.normal(size=d)) + 5.0
    return X, np.where(y, 1.0, -1.0)[:, None]


def separation(X, targets):
    return np.abs(RidgeSpectrum.from_rows(X, targets).coefficients(np.array([1e-6]))[0] @ (X - X.mean(0)).T).max()


def test_there_was_something_to_erase():
    X, targets = problem()
    assert separation(X, targets) > 0.5


def test_erased_training_rows_have_no_linear_trace():
    X, targets = problem()
    assert separation(Leace.fit(X, targets).erase(X), targets) < 1e-6


def test_eraser_equals_the_closed_form_of_the_theorem():
    X, targets = problem()
    x, t = X - X.mean(0), targets - targets.mean(0)
    cov, cross = x.T @ x / len(x), x.T @ t / len(x)
    whiten = np.linalg.inv(scipy.linalg.sqrtm(cov).real)
    along = whiten @ cross
    projector = along @ np.linalg.pinv(along)
    oracle = X - x @ (np.linalg.inv(whiten) @ projector @ whiten).T
    np.testing.assert_allclose(Leace.fit(X, targets).erase(X), oracle, atol=1e-6)


def test_eraser_from_streamed_moments_is_the_same():
    X, targets = problem()
    moments = PairMoments.from_blocks([(X[:100], targets[:100]), (X[100:], targets[100:])])
    np.testing.assert_allclose(Leace.from_moments(moments).erase(X), Leace.fit(X, targets).erase(X), atol=1e-9)


def test_eraser_changes_rows_less_than_projecting_the_mean_difference_away():
    X, targets = problem()
    gap = X[targets[:, 0] > 0].mean(0) - X[targets[:, 0] < 0].mean(0)
    gap /= np.linalg.norm(gap)
    projected = X - np.outer((X - X.mean(0)) @ gap, gap)
    least = ((Leace.fit(X, targets).erase(X) - X) ** 2).sum()
    assert least <= ((projected - X) ** 2).sum() + 1e-9


def test_eraser_fitted_on_other_rows_leaves_test_rows_near_chance_and_not_below():
    X, targets = problem(n=1000)
    train, test = np.arange(500), np.arange(500, 1000)
    erased = Leace.fit(X[train], targets[train]).erase(X)
    probe = RidgeSpectrum.from_rows(erased[train], targets[train]).coefficients(np.array([1e-3]))[0]
    correlation = np.corrcoef((erased[test] @ probe.T)[:, 0], targets[test, 0])[0, 1]
    assert abs(correlation) < 0.15
