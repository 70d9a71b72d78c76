"""Metrics from choices' log-probabilities: definitions, padding, ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from taxlens.analysis.scoring.metrics import CHOICE_METRICS, METRICS, item_metrics
from taxlens.core.errors import UsageError

NAN = np.nan
LOGP = np.array([[-1.0, -2.0, NAN], [-3.0, -2.0, -2.5]])
GOLD = np.array([0, 2])
BYTES = np.array([[4, 2, 0], [3, 3, 9]])


def test_metrics_match_hand_computed_values():
    got = item_metrics(LOGP, GOLD, n_bytes=BYTES)
    assert got["accuracy"].tolist() == [1.0, 0.0]
    assert got["accuracy_norm"].tolist() == [1.0, 1.0]
    assert got["margin"].tolist() == [1.0, -0.5]
    assert got["nll"].tolist() == [1.0, 2.5]
    assert got["probability"][1] == pytest.approx(np.exp(-2.5 - logsumexp(LOGP[1])))


def test_normalising_by_bytes_can_change_the_answer():
    logp, gold = np.array([[-4.0, -5.0]]), np.array([1])
    got = item_metrics(logp, gold, n_bytes=np.array([[2, 10]]))
    assert (got["accuracy"][0], got["accuracy_norm"][0]) == (0.0, 1.0)


def test_first_of_equal_choices_is_taken_as_lm_eval_does():
    logp = np.array([[-1.0, -1.0]])
    assert item_metrics(logp, np.array([0]), metrics=["accuracy"])["accuracy"][0] == 1.0
    assert item_metrics(logp, np.array([1]), metrics=["accuracy"])["accuracy"][0] == 0.0


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (5, 4), elements=st.floats(-50, 0)), st.integers(0, 3))
def test_padding_with_absent_choices_changes_nothing(logp, gold):
    golds = np.full(5, gold)
    plain = item_metrics(logp, golds, n_bytes=np.full(logp.shape, 3))
    padded = item_metrics(
        np.hstack([logp, np.full((5, 2), NAN)]),
        golds,
        n_bytes=np.hstack([np.full((5, 4), 3), np.zeros((5, 2))]),
    )
    for metric in CHOICE_METRICS:
        assert plain[metric] == pytest.approx(padded[metric], abs=1e-12)


def test_probability_survives_very_unlikely_choices():
    got = item_metrics(np.array([[-2000.0, -2001.0]]), np.array([0]), metrics=["probability"])
    assert got["probability"][0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_every_metric_has_a_sign_that_makes_loss_positive():
    assert set(CHOICE_METRICS) < set(METRICS)
    assert METRICS["nll"].sign == -1.0


def test_gold_without_a_choice_is_refused_with_its_row():
    with pytest.raises(UsageError, match="row 0, gold 2"):
        item_metrics(LOGP, np.array([2, 2]))
    with pytest.raises(UsageError, match="1 of 2"):
        item_metrics(LOGP, np.array([0, 3]))


def test_accuracy_norm_without_bytes_is_refused():
    with pytest.raises(UsageError, match="n_bytes"):
        item_metrics(LOGP, GOLD, metrics=["accuracy_norm"])
    with pytest.raises(UsageError, match="not aligned"):
        item_metrics(LOGP, GOLD, metrics=["accuracy_norm"], n_bytes=BYTES[:, :2])


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UsageError, match="'probability'"):
        item_metrics(LOGP, GOLD, metrics=["probabilty"])


def test_shapes_that_disagree_are_refused():
    with pytest.raises(UsageError, match="one gold an item"):
        item_metrics(LOGP, np.array([0]))
