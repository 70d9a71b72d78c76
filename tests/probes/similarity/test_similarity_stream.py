"""One pass in blocks gives what all rows at once give, in any cutting and order, at any offset."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import BLOCK, gather
from taxlens.probes.similarity.cka import cka
from taxlens.probes.similarity.layer_map import layer_map
from taxlens.probes.similarity.measures import MEASURES
from taxlens.probes.similarity.similarity import similarity

STREAMED = [name for name, measure in MEASURES.items() if measure.kind != "rows"]


def pair(n=300, d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + 3
    return X, X @ rng.normal(size=(d, d)) + rng.normal(size=(n, d))


def table(source, groups=None, names=STREAMED, **options):
    return similarity(gather(source, groups, **options), measures=names).to_frame()


def columns(frame, *names):
    return frame[list(names)].to_numpy(dtype=float)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=6))
def test_any_cutting_gives_the_same_table(cuts):
    X, Y = pair()
    edges = [0, *sorted(cuts), 300]
    blocks = [(X[a:b], Y[a:b]) for a, b in pairwise(edges)]
    names = ["cka", "procrustes", "linear_r2", "drift", "subspace"]
    got, want = (table(source, np.arange(300) // 3, names) for source in (iter(blocks), (X, Y)))
    assert got.equals(want)


def test_cutting_across_internal_blocks_gives_the_same_values():
    X, Y = pair(n=3 * BLOCK + 17)
    parts = [(X[a : a + 999], Y[a : a + 999]) for a in range(0, len(X), 999)]
    assert table(parts).equals(table((X, Y)))


def test_shard_order_changes_no_value_and_no_interval():
    X, Y = pair(n=2 * BLOCK + 100)
    groups = np.arange(len(X)) // 4
    shards = [slice(0, 900), slice(900, 3000), slice(3000, len(X))]
    want = table((X, Y), groups)
    order = [shards[2], shards[0], shards[1]]
    got = table([(X[s], Y[s]) for s in order], np.concatenate([groups[s] for s in order]))
    numbers = ("value", "low", "high", "trimmed")
    np.testing.assert_allclose(columns(got, *numbers), columns(want, *numbers), rtol=1e-10, atol=1e-10)


def test_kept_rows_are_the_same_sample_in_any_cutting():
    X, Y = pair(n=500)
    parts = [(X[a : a + 70], Y[a : a + 70]) for a in range(0, 500, 70)]
    first, second = (gather(source, keep=50).rows for source in (parts, (X, Y)))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(first[0]) == 50


def test_massive_channels_in_float32_keep_ten_digits():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 32))
    X[:, 0], X[:, 1] = 3000 + 20 * X[:, 0], -1500 + 10 * X[:, 1]
    Y = X + 0.3 * rng.normal(size=X.shape)
    X32, Y32 = X.astype(np.float32), Y.astype(np.float32)
    exact = [rows.astype(np.float64) - rows.astype(np.float64).mean(0) for rows in (X32, Y32)]
    in_memory = cka(PairMoments.from_blocks([tuple(exact)]))
    assert cka(gather((X32, Y32)).total) == pytest.approx(in_memory, rel=1e-10)
    raw = PairMoments.from_blocks([(X32, Y32)], shift=(np.zeros(32), np.zeros(32)))
    assert abs(cka(raw) / in_memory - 1) > abs(cka(gather((X32, Y32)).total) / in_memory - 1)


def test_layer_map_equals_pair_by_pair_in_any_tiling():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 4, 8)).cumsum(1)
    aligned = base + 0.3 * rng.normal(size=base.shape)
    groups = np.arange(200) // 5
    readers = (lambda layer: base[:, layer], lambda layer: aligned[:, layer])
    tiled = layer_map(*readers, range(4), groups=groups, memory=1)
    whole = layer_map(*readers, range(4), groups=groups)
    assert tiled.to_frame().equals(whole.to_frame())
    for a in range(4):
        for b in range(4):
            row = similarity((base[:, a], aligned[:, b]), groups, measures=["cka"]).rows[0]
            cell = whole.value("cka", a, layer_aligned=b)
            assert (cell.value, cell.low, cell.high) == pytest.approx((row.value, row.low, row.high), rel=1e-10)


def test_layer_map_of_any_measure_goes_pair_by_pair():
    X, Y = pair()
    rows = layer_map(lambda a: X + a, lambda a: Y, [0, 1], layers_aligned=[5], measure="procrustes").rows
    assert [(row.layer_base, row.layer_aligned, row.measure) for row in rows] == [
        (0, 5, "procrustes"),
        (1, 5, "procrustes"),
    ]


def test_heads_are_read_one_at_a_time_or_together():
    X, Y = pair(d=6)
    heads = X.reshape(-1, 2, 3), Y.reshape(-1, 2, 3)
    assert table(heads).equals(table((X, Y)))
    assert table(heads, names=["cka"], head=1).equals(table((X[:, 3:], Y[:, 3:]), names=["cka"]))


def test_drift_by_position_adds_up_to_drift():
    from taxlens.probes.similarity.drift import drift_by_position, relative_norm

    X, Y = pair()
    Y = X + (np.arange(300) % 3)[:, None] * 0.1
    gathered = gather((X, Y), positions=np.arange(300) % 3)
    places = drift_by_position(gathered.drift)
    assert [(p.position, p.n) for p in places] == [(0, 100), (1, 100), (2, 100)]
    assert places[0].relative_norm == 0
    assert places[1].relative_norm < places[2].relative_norm
    total = np.sum(list(gathered.drift.by_position.values()), axis=0)
    assert relative_norm(total) == pytest.approx(relative_norm(gathered.drift.parts().sum(0)), rel=1e-12)


def test_table_has_the_columns_of_the_contract_and_adds():
    X, Y = pair()
    both = similarity((X, Y), layer=0) + similarity((X, Y), layer=1)
    wanted = ["layer_base", "layer_aligned", "measure", "value", "low", "high", "null", "n_items"]
    frame = both.to_frame()
    assert set(wanted) <= set(frame.columns)
    assert sorted(frame.layer_base.unique()) == [0, 1]
    assert "n=300" in repr(both)
    assert "cka" in both._repr_html_()
