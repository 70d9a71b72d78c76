import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score, roc_auc_score

from taxlens.core.errors import UsageError
from taxlens.probes.kinds.probe import Probe
from taxlens.probes.pair.scores import Evaluator, Score
from taxlens.probes.pair.transfer import fold_map
from taxlens.probes.rows.calibration import Calibration, fit_calibration
from taxlens.probes.rows.folds import Folds
from taxlens.probes.rows.labels import read_labels


def meter(y, n_groups=40, task="auto", draws=200):
    groups = np.repeat(np.arange(n_groups), len(y) // n_groups)
    labels = read_labels(y, groups=groups, task=task)
    return Evaluator(labels, Folds(np.zeros(len(y), int), groups, 1, n_groups), draws=draws, seed=0)


def expected_calibration_error(probabilities, codes, bins=10):
    """Mean |confidence - accuracy| of the top class over equal bins (Guo et al. 2017, equation 3), bin by bin."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == codes
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum((which == b).mean() * abs(confidence[which == b].mean() - hit[which == b].mean()) for b in set(which))


def binary(seed=0, n=200):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return y, (rng.normal(size=n) + 1.2 * y - 0.6)[:, None]


def test_readings_of_two_classes_equal_scikit_learn():
    y, s = binary()
    probabilities = np.stack([1 - expit(2 * s[:, 0]), expit(2 * s[:, 0])], axis=1)
    got = meter(y).measure(s, probabilities)
    np.testing.assert_allclose(got["auc"].value, roc_auc_score(y, s))
    np.testing.assert_allclose(got["balanced_accuracy"].value, balanced_accuracy_score(y, s[:, 0] > 0))
    np.testing.assert_allclose(got["log_loss"].value, log_loss(y, probabilities))
    np.testing.assert_allclose(got["ece"].value, expected_calibration_error(probabilities, y))


def test_readings_of_three_classes_equal_scikit_learn():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    s = rng.normal(size=(240, 3)) + 1.5 * np.eye(3)[y]
    p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    got = meter(y).measure(s, p)
    each = [roc_auc_score(y == c, s[:, c]) for c in range(3)]
    np.testing.assert_allclose(got["auc"].value, np.mean(each))
    np.testing.assert_allclose(got["balanced_accuracy"].value, balanced_accuracy_score(y, s.argmax(1)))
    np.testing.assert_allclose(got["log_loss"].value, log_loss(y, p))


def test_r2_equals_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    predicted = y + 0.5 * rng.normal(size=200)
    reading = meter(y).r2(predicted[:, None])
    np.testing.assert_allclose(reading.value, r2_score(y, predicted))
    low, high = reading.interval()
    assert low < reading.value < high


@pytest.mark.parametrize("name", ["auc", "balanced_accuracy", "log_loss", "ece", "snr"])
def test_every_reading_lies_in_its_interval_and_narrows_with_more_groups(name):
    widths = []
    for n in (200, 3200):
        y, s = binary(n=n)
        p = np.stack([1 - expit(2 * s[:, 0]), expit(2 * s[:, 0])], axis=1)
        reading = meter(y, n_groups=n // 5).measure(s, p)[name]
        low, high = reading.interval()
        assert low <= reading.value <= high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_snr_is_the_squared_distance_of_the_classes():
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 2
    s = (rng.normal(size=4000) + 2.0 * y)[:, None]
    assert meter(y).snr(s).value == pytest.approx(4.0, rel=0.1)
    np.testing.assert_allclose(meter(y).snr(5 * s).value, meter(y).snr(s).value)


def test_differences_are_taken_draw_by_draw():
    one, two = Score(0.9, np.array([0.8, 1.0])), Score(0.7, np.array([0.6, 0.8]))
    drop = one.minus(two)
    assert drop.value == pytest.approx(0.2)
    np.testing.assert_allclose(drop.draws, 0.2)


def test_an_undefined_reading_has_an_undefined_interval():
    assert np.isnan(Score(np.nan, np.full(3, np.nan)).interval()).all()


def test_calibration_finds_slope_and_offset_of_scikit_learn():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(5000, 1))
    y = (rng.random(5000) < expit(3 * s[:, 0] - 1)).astype(int)
    ours, oracle = fit_calibration(s, y), LogisticRegression(C=1e9).fit(s, y)
    np.testing.assert_allclose([ours.slope, ours.offset], [oracle.coef_[0, 0], oracle.intercept_[0]], atol=0.02)


def test_calibration_undoes_a_shrink_of_the_scores():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(500, 1))
    y = (rng.random(500) < expit(3 * s[:, 0])).astype(int)
    np.testing.assert_allclose(
        fit_calibration(0.01 * s, y).probabilities(0.01 * s), fit_calibration(s, y).probabilities(s), atol=1e-6
    )


def test_calibration_of_separable_scores_stays_finite():
    calibration = fit_calibration(np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
    assert np.isfinite(calibration.slope)
    assert 0.5 < calibration.probabilities(np.array([[1.0]]))[0, 1] < 1


def test_temperature_of_many_classes_is_recovered():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(6000, 4))
    p = Calibration(2.5).probabilities(s)
    y = np.array([rng.choice(4, p=row) for row in p])
    assert fit_calibration(s, y).slope == pytest.approx(2.5, abs=0.15)


def test_ece_is_zero_for_certain_and_right_and_one_for_certain_and_wrong():
    p, s = np.array([[1.0, 0.0], [0.0, 1.0]] * 4), np.array([[-1.0], [1.0]] * 4)
    assert meter(np.array([0, 1] * 4), n_groups=4).measure(s, p)["ece"].value == 0
    assert meter(np.array([1, 0] * 4), n_groups=4).measure(s, p)["ece"].value == 1


def test_a_probe_reads_rows_of_its_width_only():
    probe = Probe("ridge", "regression", np.array([[1.0, 2.0]]), np.array([0.5]))
    assert probe.predict(np.array([[1.0, 1.0]])) == [3.5]
    with pytest.raises(UsageError, match=r"do not fit the probe[\s\S]*\[n, 2\]"):
        probe.scores(np.zeros((3, 5)))


def test_a_multiclass_probe_has_a_direction_a_class():
    probe = Probe("ridge", "multiclass", np.eye(3), np.zeros(3), ("a", "b", "c"), source={"layer": 4})
    assert probe.direction(label="b").vector.tolist() == [0.0, 1.0, 0.0]
    assert probe.direction(label="b").layer == 4
    with pytest.raises(UsageError, match=r"one direction a class[\s\S]*'a', 'b', 'c'"):
        probe.direction()


def test_a_procrustes_map_undoes_a_turn_and_a_ridge_map_any_affine_map():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    np.testing.assert_allclose(fold_map("procrustes", 3 * X @ turn + 1, X)(3 * X @ turn + 1), X, atol=1e-9)
    bent = X @ rng.normal(size=(4, 4)) + 2
    np.testing.assert_allclose(fold_map("ridge", bent, X)(bent), X, atol=0.1)
    assert np.abs(fold_map("procrustes", bent, X)(bent) - X).max() > 0.3


def test_a_ridge_map_works_with_fewer_rows_than_dimensions():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 50))
    np.testing.assert_allclose(fold_map("ridge", X, X)(X), X, atol=0.1)
