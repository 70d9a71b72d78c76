import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.core.errors import UsageError
from taxlens.probes.rows.moments import _SUMS, PairMoments


def rows(n=60, d_x=5, d_y=4, seed=0, mean=3.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d_x)) + mean
    return X, X @ rng.normal(size=(d_x, d_y)) + rng.normal(size=(n, d_y)) - mean


def direct(X, Y, shift_x, shift_y):
    x, y = X - shift_x, Y - shift_y
    p, q = (x**2).sum(1), (y**2).sum(1)
    return {
        "sum_x": x.sum(0), "sum_y": y.sum(0), "xx": x.T @ x, "yy": y.T @ y, "xy": x.T @ y,
        "q_x": p.sum(), "q_y": q.sum(), "q_xx": (p**2).sum(), "q_yy": (q**2).sum(), "q_xy": p @ q,
        "u_xx": x.T @ p, "u_yy": y.T @ q, "u_xy": x.T @ q, "u_yx": y.T @ p,
    }  # fmt: skip


def assert_equal(moments, expected, rtol=1e-10):
    for name in _SUMS:
        got, want = np.asarray(getattr(moments, name)), np.asarray(expected[name])
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * max(1.0, np.abs(want).max()), err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 59), max_size=6), st.integers(0, 1000))
def test_streaming_moments_equal_in_memory_moments_in_any_chunking(cuts, seed):
    X, Y = rows(seed=seed)
    edges = sorted({0, 60, *cuts})
    moments = PairMoments.from_blocks((X[a:b], Y[a:b]) for a, b in itertools.pairwise(edges))
    assert moments.n == 60
    assert_equal(moments, direct(X, Y, moments.shift_x, moments.shift_y))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 59), st.integers(0, 1000))
def test_merge_of_two_streams_equals_one_stream_in_either_order(cut, seed):
    X, Y = rows(seed=seed)
    first = PairMoments.from_blocks([(X[:cut], Y[:cut])])
    second = PairMoments.from_blocks([(X[cut:], Y[cut:])])
    for merged in (first.merge(second), second.merge(first)):
        assert_equal(merged, direct(X, Y, merged.shift_x, merged.shift_y))


def test_order_of_blocks_does_not_change_centred_moments():
    X, Y = rows()
    forward = PairMoments.from_blocks([(X[:30], Y[:30]), (X[30:], Y[30:])]).centred()
    backward = PairMoments.from_blocks([(X[30:], Y[30:]), (X[:30], Y[:30])]).centred()
    assert_equal(forward, {name: getattr(backward, name) for name in _SUMS})


def test_moments_move_to_another_shift_exactly():
    X, Y = rows()
    a, b = np.arange(5.0), -np.arange(4.0)
    assert_equal(PairMoments.from_blocks([(X, Y)]).shifted(a, b), direct(X, Y, a, b))


def test_moments_left_at_a_wrong_shift_differ():
    X, Y = rows()
    moments = PairMoments.from_blocks([(X, Y)])
    wrong = direct(X, Y, moments.shift_x + 1, moments.shift_y)
    assert not np.allclose(moments.q_xx, wrong["q_xx"])


def test_swapped_moments_are_those_of_the_swapped_pair():
    X, Y = rows()
    moments = PairMoments.from_blocks([(X, Y)]).swapped()
    assert_equal(moments, direct(Y, X, moments.shift_x, moments.shift_y))


def test_covariances_equal_numpy():
    X, Y = rows()
    moments = PairMoments.from_blocks([(X[:7], Y[:7]), (X[7:], Y[7:])])
    full = np.cov(np.hstack([X, Y]).T, bias=True)
    np.testing.assert_allclose(moments.cov_xx(), full[:5, :5], atol=1e-12)
    np.testing.assert_allclose(moments.cov_yy(), full[5:, 5:], atol=1e-12)
    np.testing.assert_allclose(moments.cov_xy(), full[:5, 5:], atol=1e-12)
    np.testing.assert_allclose(moments.mean_x(), X.mean(0))
    np.testing.assert_allclose(moments.mean_y(), Y.mean(0))


def test_float32_rows_with_means_of_1000_sd_keep_six_digits():
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(4000, 6)) + 1000).astype(np.float32)
    Y = (rng.normal(size=(4000, 6)) - 1000).astype(np.float32)
    moments = PairMoments.from_blocks((X[i : i + 256], Y[i : i + 256]) for i in range(0, 4000, 256))
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    assert_equal(moments.centred(), direct(X, Y, X.mean(0), Y.mean(0)), rtol=1e-6)
    unshifted = np.cov(X.astype(np.float32).T @ X.astype(np.float32) / 4000)
    assert not np.allclose(unshifted, moments.cov_xx(), rtol=1e-2)


def test_layers_are_batched_as_leading_axis():
    X, Y = rows(n=40)
    X2, Y2 = rows(n=40, seed=5)
    both = PairMoments.from_blocks([(np.stack([X, X2]), np.stack([Y, Y2]))])
    for layer, (x, y) in enumerate([(X, Y), (X2, Y2)]):
        expected = direct(x, y, both.shift_x[layer], both.shift_y[layer])
        for name in _SUMS:
            np.testing.assert_allclose(getattr(both, name)[layer], expected[name], rtol=1e-9, atol=1e-9)
    moved = both.shifted(both.shift_x + 1, both.shift_y)
    np.testing.assert_allclose(moved.u_xy[1], direct(X2, Y2, moved.shift_x[1], moved.shift_y[1])["u_xy"], rtol=1e-9)


def test_torch_rows_give_the_same_moments_as_numpy_rows():
    X, Y = rows()
    ours = PairMoments.from_blocks([(torch.tensor(X), torch.tensor(Y))]).numpy()
    assert_equal(ours, direct(X, Y, ours.shift_x, ours.shift_y))


def test_merge_with_an_empty_stream_changes_nothing():
    X, Y = rows()
    moments = PairMoments.from_blocks([(X, Y)])
    assert moments.merge(PairMoments()) is moments
    assert PairMoments().merge(moments) is moments
    assert moments.update(X[:0], Y[:0]).n == 60


def test_a_block_of_unequal_rows_is_refused():
    X, Y = rows()
    with pytest.raises(UsageError, match=r"same rows in both models[\s\S]*\(60, 5\)[\s\S]*\(59, 4\)"):
        PairMoments().update(X, Y[:-1])


def test_a_block_of_another_width_is_refused():
    X, Y = rows()
    with pytest.raises(UsageError, match="width of the rows changed"):
        PairMoments().update(X, Y).update(X[:, :3], Y)


def test_nan_rows_are_refused_by_row_number():
    X, Y = rows()
    X[33, 2] = np.nan
    with pytest.raises(UsageError, match=r"NaN or infinite[\s\S]*rows +33"):
        PairMoments.from_blocks([(X[:30], Y[:30]), (X[30:], Y[30:])])


def test_no_rows_are_refused():
    with pytest.raises(UsageError, match="no rows"):
        PairMoments.from_blocks([])


def test_moments_of_folds_merge_to_the_moments_of_all_but_one_fold():
    X, Y = rows()
    codes = np.arange(60) % 4
    shift = X[0], Y[0]
    parts = [PairMoments.from_blocks([(X[codes == c], Y[codes == c])], shift=shift) for c in range(4)]
    rest = parts[0].merge(parts[1]).merge(parts[3])
    kept = codes != 2
    assert_equal(rest, direct(X[kept], Y[kept], rest.shift_x, rest.shift_y))
