"""On rows that share nothing every measure reads its null, and intervals cover."""

import numpy as np
import pytest

from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.cka import cka, cka_biased
from taxlens.probes.similarity.knn import K
from taxlens.probes.similarity.measures import MEASURES
from taxlens.probes.similarity.similarity import similarity


def independent(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d))


@pytest.mark.parametrize("n, d", [(40, 200), (100, 100), (400, 40)])
def test_debiased_cka_of_independent_rows_is_within_three_errors_of_zero(n, d):
    values = [cka(PairMoments.from_blocks([independent(n, d, seed)])) for seed in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("n, d", [(40, 200), (100, 100), (400, 40)])
def test_biased_cka_of_independent_rows_is_not_zero(n, d):
    values = [cka_biased(PairMoments.from_blocks([independent(n, d, seed)])) for seed in range(10)]
    assert np.mean(values) > 0.05


@pytest.mark.parametrize("n, d", [(40, 200), (100, 100), (400, 40)])
def test_mutual_knn_of_independent_rows_is_at_chance(n, d):
    values = np.array([MEASURES["mutual_knn"].function(*independent(n, d, seed)).mean() for seed in range(8000 // n)])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))
    assert np.mean(values + K / (n - 1)) == pytest.approx(K / (n - 1), rel=0.1)


@pytest.mark.parametrize("name", ["cka", "procrustes", "mutual_knn"])
def test_null_column_is_near_zero_where_the_pair_agrees(name):
    X, _ = independent(500, 8, 0)
    row = similarity((X, X + 0.1 * independent(500, 8, 5)[0]), measures=[name]).rows[0]
    assert row.value > 0.7
    assert abs(row.null) < 0.1


def test_null_pairs_no_row_with_its_own_group():
    rng = np.random.default_rng(0)
    centre = np.repeat(rng.normal(size=(40, 6)), 10, axis=0)
    groups = np.repeat(np.arange(40), 10)
    X, Y = (centre + 0.1 * rng.normal(size=centre.shape) for _ in range(2))
    assert abs(similarity((X, Y), groups, measures=["cka"]).rows[0].null) < 0.1


def test_interval_covers_when_groups_are_few_and_rows_within_them_alike():
    def draw(seed):
        rng = np.random.default_rng(seed)
        centre = rng.normal(size=(60, 4))
        X, Y = (np.repeat(centre + rng.normal(size=centre.shape), 5, axis=0) for _ in range(2))
        X, Y = (rows + 0.1 * rng.normal(size=rows.shape) for rows in (X, Y))
        return similarity((X, Y), np.repeat(np.arange(60), 5), measures=["cka"]).rows[0]

    rng = np.random.default_rng(1)
    big = rng.normal(size=(100_000, 4))
    truth = similarity((big + rng.normal(size=big.shape), big + rng.normal(size=big.shape)), measures=["cka"])
    rows = [draw(seed) for seed in range(40)]
    covered = np.mean([row.low <= truth.rows[0].value <= row.high for row in rows])
    assert covered >= 0.85


def test_interval_of_repeated_rows_is_wider_by_group_than_by_row():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(50, 4)), 8, axis=0)
    Y = np.repeat(rng.normal(size=(50, 4)), 8, axis=0) + X
    by_group = similarity((X, Y), np.repeat(np.arange(50), 8), measures=["cka"]).rows[0]
    by_row = similarity((X, Y), np.random.default_rng(1).permutation(400), measures=["cka"]).rows[0]
    assert by_group.high - by_group.low > 1.5 * (by_row.high - by_row.low)


def test_subspace_ceiling_is_below_one_where_the_spectrum_is_flat():
    X, _ = independent(200, 40, 0)
    row = similarity((X, X), measures=["subspace"]).rows[0]
    assert row.value == pytest.approx(1.0)
    assert row.ceiling < 0.7
    assert row.null == 0.25


def test_trimmed_leaves_out_a_thousandth_of_the_rows_by_either_norm():
    X, Y = independent(3000, 4, 0)
    assert 3 <= gather((X, Y)).n_trimmed <= 6
    assert gather((X, Y), trim=0).n_trimmed == 0
