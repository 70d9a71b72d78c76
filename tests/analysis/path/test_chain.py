"""The chain rule from scores to metrics: closure, antisymmetry, ties and grazes, on made-up smooth scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.analysis.path.chain_rule import Path, ScoreMetric, chain, direct
from taxlens.analysis.path.quadrature import gauss_patterson
from taxlens.analysis.scoring.metrics import CHOICE_METRICS, METRICS, item_metrics, smooth_metrics
from taxlens.core.errors import UsageError


def smooth(seed, *, items=30, choices=4, components=5, size=2.0, nodes=15):
    """A path whose scores are sums of components' smooth curves, and each component's slopes at the nodes."""
    draw = np.random.default_rng(seed)
    rule = gauss_patterson(nodes)
    waves = draw.normal(size=(components, items, choices, 4)) * size

    def slopes(t):
        basis = np.stack([np.cos(1.5 * m * t + m) for m in range(4)], axis=-1)
        return np.einsum("tm,cikm->tcik", basis, waves)

    fine = gauss_patterson(31)
    start = draw.normal(size=(items, choices)) * 3
    end = start + np.einsum("t,tcik->ik", fine.weights(), slopes(fine.nodes))
    parts = slopes(rule.nodes)
    absent = np.zeros((items, choices), dtype=bool)
    absent[::3, -1] = True
    start[absent], end[absent] = np.nan, np.nan
    parts[:, :, absent] = 0
    total = parts.sum(axis=1)
    total[:, absent] = np.nan
    gold = draw.integers(0, choices - 1, size=items)
    sizes = draw.integers(1, 9, size=(items, choices)).astype(float)
    return Path(rule, start, end, total, gold, sizes), parts


def effects(path, parts, metric):
    return np.einsum("jik,jcik->ic", chain(path, metric).weights, parts)


def change(path, metric):
    ends = [item_metrics(s, path.gold, n_bytes=path.n_bytes, metrics=(metric,))[metric] for s in (path.start, path.end)]
    return ends[1] - ends[0]


@pytest.mark.parametrize("metric", CHOICE_METRICS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_components_effects_sum_to_the_change_of_every_item(metric, seed):
    path, parts = smooth(seed)
    assert effects(path, parts, metric).sum(axis=1) == pytest.approx(change(path, metric), abs=1e-8)


@pytest.mark.parametrize("metric", CHOICE_METRICS)
def test_exchanging_the_ends_reverses_every_effect(metric):
    path, parts = smooth(3, items=100)
    back = Path(path.rule, path.end, path.start, -path.slopes[::-1], path.gold, path.n_bytes)
    assert effects(back, -parts[::-1], metric) == pytest.approx(-effects(path, parts, metric), abs=1e-9)


def test_exchange_holds_also_where_the_scores_are_not_resolved():
    path, parts = smooth(4, items=100, nodes=3)
    assert path.end_error() > 1e-3
    back = Path(path.rule, path.end, path.start, -path.slopes[::-1], path.gold, path.n_bytes)
    assert back.end_error() == pytest.approx(path.end_error())
    for metric in CHOICE_METRICS:
        assert effects(back, -parts[::-1], metric) == pytest.approx(-effects(path, parts, metric), abs=1e-9)


def test_a_component_without_slopes_gets_exactly_zero():
    path, parts = smooth(5)
    parts = np.concatenate([parts, np.zeros_like(parts[:, :1])], axis=1)
    for metric in CHOICE_METRICS:
        assert (effects(path, parts, metric)[:, -1] == 0).all()


def test_chain_agrees_with_direct_quadrature_of_a_metric_that_does_not_saturate():
    path, parts = smooth(6, size=0.2, nodes=31)
    scores = path.trajectory().at(path.rule.nodes)
    for metric in ("probability", "nll"):
        plain = np.einsum("jik,jcik->ic", direct(path, metric, scores), parts)
        assert plain == pytest.approx(effects(path, parts, metric), abs=1e-6)


def test_chain_closes_where_direct_quadrature_of_a_saturating_metric_does_not():
    path, parts = smooth(7, size=8.0)
    plain = np.einsum("jik,jcik->ic", direct(path, "probability", path.trajectory().at(path.rule.nodes)), parts)
    wanted = change(path, "probability")
    assert np.abs(effects(path, parts, "probability").sum(axis=1) - wanted).max() < 1e-5
    assert np.abs(plain.sum(axis=1) - wanted).max() > 1e-2


def test_a_users_metric_closes_and_equals_the_built_in_it_repeats():
    def gold_share(scores, gold):
        return torch.softmax(scores, -1)[..., torch.arange(len(gold)), gold]

    path, parts = smooth(8)
    mine = ScoreMetric(gold_share)
    assert effects(path, parts, mine) == pytest.approx(effects(path, parts, "probability"), abs=1e-12)
    assert mine.value(path.start, path.gold) == pytest.approx(
        item_metrics(path.start, path.gold, metrics=("probability",))["probability"]
    )


def test_gradients_are_those_of_finite_differences():
    path, _ = smooth(9, items=6)
    step = 1e-6
    for metric in smooth_metrics():
        gradient = METRICS[metric].gradient
        exact = gradient(path.start[None], path.gold)[0]
        for choice in range(3):
            moved = path.start.copy()
            moved[:, choice] += step
            up = item_metrics(moved, path.gold, metrics=(metric,))[metric]
            rise = (up - item_metrics(path.start, path.gold, metrics=(metric,))[metric]) / step
            assert rise == pytest.approx(exact[:, choice], abs=1e-5)


def straight(start, end, gold=(0,)):
    """Two choices whose scores move in straight lines: one component moves the gold, one the other."""
    rule = gauss_patterson(3)
    start, end = np.array([start], dtype=float), np.array([end], dtype=float)
    slopes = np.repeat((end - start)[None], 3, axis=0)
    parts = np.zeros((3, 2, 1, 2))
    parts[:, 0, :, 0], parts[:, 1, :, 1] = slopes[..., 0], slopes[..., 1]
    return Path(rule, start, end, slopes, np.array(gold)), parts


def test_a_flip_is_shared_by_what_moves_the_margin_at_the_crossing():
    path, parts = straight([1.0, 0.0], [0.0, 3.0])
    assert effects(path, parts, "accuracy")[0] == pytest.approx([-0.25, -0.75])


def test_an_item_that_stays_right_has_no_effect_on_accuracy():
    path, parts = straight([1.0, 0.0], [2.0, 0.5])
    assert (effects(path, parts, "accuracy") == 0).all()


def test_a_tie_that_the_gold_wins_by_order_is_lost_as_soon_as_it_falls():
    path, parts = straight([1.0, 1.0], [0.0, 2.0])
    assert effects(path, parts, "accuracy").sum() == pytest.approx(-1)


def test_a_tie_that_the_gold_loses_by_order_was_never_right():
    path, parts = straight([1.0, 1.0], [2.0, 0.0], gold=(1,))
    assert (effects(path, parts, "accuracy") == 0).all()


def test_a_tie_at_the_end_counts_as_arg_max_counts_it():
    path, parts = straight([2.0, 0.0], [1.0, 1.0])
    assert effects(path, parts, "accuracy").sum() == 0
    path, parts = straight([0.0, 2.0], [1.0, 1.0], gold=(1,))
    assert effects(path, parts, "accuracy").sum() == pytest.approx(-1)


def touching(height):
    """The gold falls below its other by `height` in the middle of the path and comes back."""
    rule = gauss_patterson(7)
    t = rule.nodes
    # margin(t) = 8 (t - 1/2)^2 - height, made of one component that takes and one that gives
    slopes = np.zeros((7, 1, 2))
    slopes[:, 0, 0] = 16 * (t - 0.5)
    parts = np.zeros((7, 2, 1, 2))
    parts[:, 0, :, 0], parts[:, 1, :, 0] = -10.0, slopes[:, :, 0] + 10.0
    start = np.array([[2.0 - height, 0.0]])
    return Path(rule, start, start.copy(), slopes, np.array([0])), parts


def test_a_graze_is_shared_by_a_softmax_and_counted():
    path, parts = touching(1e-4)
    found = chain(path, "accuracy")
    shared = np.einsum("jik,jcik->ic", found.weights, parts)
    assert found.grazes == 1
    assert shared.sum() == pytest.approx(0, abs=1e-9)
    assert np.abs(shared).max() < 11


def test_a_clean_double_crossing_is_not_a_graze():
    path, parts = touching(1.0)
    found = chain(path, "accuracy")
    assert found.grazes == 0
    assert np.einsum("jik,jcik->ic", found.weights, parts).sum() == pytest.approx(0, abs=1e-9)


def test_without_softening_a_graze_would_blow_up():
    path, parts = touching(1e-4)
    sharp = Path(path.rule, path.start, path.end, path.slopes, path.gold, graze=1e-9)
    assert np.abs(np.einsum("jik,jcik->ijc", chain(sharp, "accuracy").weights, parts)).max() > 20


def test_end_error_is_the_share_of_the_move_that_was_missed():
    path, _ = straight([0.0, 0.0], [2.0, 0.0])
    off = Path(path.rule, path.start, np.array([[4.0, 0.0]]), path.slopes, path.gold)
    assert path.end_error() == pytest.approx(0)
    assert off.end_error() == pytest.approx(0.5)


def test_accuracy_norm_without_bytes_is_refused():
    path, _ = straight([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(UsageError, match="accuracy_norm divides by the bytes"):
        chain(path, "accuracy_norm")
