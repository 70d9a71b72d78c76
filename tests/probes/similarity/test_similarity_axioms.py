"""What each measure must not see, and, beside it, what it must."""

import numpy as np
import pytest

from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.gulp import gulp
from taxlens.probes.similarity.measures import MEASURES
from taxlens.probes.similarity.procrustes import angular_distance
from taxlens.probes.similarity.similarity import similarity

N, D = 400, 12
ROTATIONS = ("cka", "cka_biased", "procrustes", "procrustes_cosine", "angular", "linear_r2", "linear_r2_back",
             "mutual_knn", "svcca", "cca", "gulp")  # fmt: skip
BASIS_BOUND = ("drift", "drift_cosine", "subspace", "rsa")
LINEAR = ("cca",)
NOT_LINEAR = ("cka", "procrustes", "angular", "mutual_knn", "gulp", "cka_biased")
BEST = {"angular": 0.0, "gulp": 0.0, "drift": 0.0, "mutual_knn": 1 - 10 / (N - 1)}


def rng(seed=0):
    return np.random.default_rng(seed)


def rotation(seed=3, d=D):
    return np.linalg.qr(rng(seed).normal(size=(d, d)))[0]


def base():
    return rng().normal(size=(N, D)) * np.geomspace(3, 0.3, D) + 2


def other(seed=1):
    X = base()
    return X @ rng(seed).normal(size=(D, D)) + rng(seed + 1).normal(size=X.shape)


def read(X, Y, *names, groups=None):
    rows = similarity(gather((X, Y), groups, keep=len(X)), measures=list(names)).rows
    values = {row.measure: row.value for row in rows}
    return values[names[0]] if len(names) == 1 else values


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotated_scaled_shifted_copy_is_a_perfect_match(name):
    value = read(base(), 5 * base() @ rotation() - 7, name)
    assert value == pytest.approx(BEST.get(name, 1.0), abs=2e-6)


@pytest.mark.parametrize("name", [n for n in MEASURES if n.startswith("drift") or n in ("subspace", "rsa")])
def test_identical_rows_have_no_drift_and_share_everything(name):
    value = read(base(), base(), name)
    assert value == pytest.approx(1.0 if name in ("drift_cosine", "subspace", "rsa") else 0.0, abs=1e-12)


@pytest.mark.parametrize("name", BASIS_BOUND)
def test_rotated_copy_is_seen_by_measures_that_share_the_basis(name):
    same, turned = read(base(), base(), name), read(base(), base() @ rotation(), name)
    assert abs(turned - same) > 0.05


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_sheared_copy_is_no_perfect_match(name):
    shear = np.eye(D)
    shear[0, 1:] = 2.0
    assert abs(read(base(), base() @ shear, name) - BEST.get(name, 1.0)) > 0.01


@pytest.mark.parametrize("name", LINEAR)
def test_cca_does_not_see_an_invertible_linear_map(name):
    shear = np.eye(D)
    shear[0, 1:] = 2.0
    assert read(base(), base() @ shear + 1, name) == pytest.approx(1.0, abs=1e-10)
    assert read(base() @ shear, other(), name) == pytest.approx(read(base(), other(), name), rel=1e-9)


@pytest.mark.parametrize("name", [*ROTATIONS, "subspace", "drift", "drift_cosine", "rsa"])
def test_rotating_both_sides_alike_changes_nothing_but_rsa(name):
    X, Y, Q = base(), other(), rotation()
    before, after = read(X, Y, name), read(X @ Q, Y @ Q, name)
    if name == "rsa":
        assert abs(before - after) > 1e-3
    else:
        assert after == pytest.approx(before, rel=1e-8)


@pytest.mark.parametrize("name", ["cka", "procrustes", "linear_r2", "drift", "drift_cosine", "mutual_knn"])
def test_permuting_the_rows_of_both_sides_changes_nothing(name):
    X, Y, order = base(), other(), rng(9).permutation(N)
    groups = np.arange(N)
    assert read(X[order], Y[order], name, groups=groups[order]) == pytest.approx(
        read(X, Y, name, groups=groups), rel=1e-10
    )


@pytest.mark.parametrize("name", ["cka", "procrustes", "linear_r2", "drift_cosine", "mutual_knn", "cca"])
def test_permuting_the_rows_of_one_side_is_seen(name):
    X, Y = base(), other()
    assert read(X, Y[rng(9).permutation(N)], name) < 0.7 * read(X, Y, name)


def test_duplicating_the_neurons_changes_nothing():
    X, Y = base(), other()
    twice = [np.concatenate([rows, rows], axis=1) for rows in (X, Y)]
    for name in ("cka", "procrustes", "procrustes_cosine", "linear_r2", "drift", "drift_cosine"):
        tolerance = 1e-5 if name == "linear_r2" else 1e-9  # its penalty is relative to the mean eigenvalue
        assert read(*twice, name) == pytest.approx(read(X, Y, name), rel=tolerance), name


def test_duplicating_the_rows_is_no_new_evidence_for_cka_but_moves_debiasing():
    X, Y = base(), other()
    twice = [np.concatenate([rows, rows]) for rows in (X, Y)]
    assert read(*twice, "cka_biased") == pytest.approx(read(X, Y, "cka_biased"), rel=1e-10)
    assert read(*twice, "cka") != pytest.approx(read(X, Y, "cka"), rel=1e-6)


def test_linear_r2_is_not_symmetric_and_its_two_ways_exchange():
    X = base()
    Y = np.concatenate([X[:, :6], np.zeros((N, 6))], axis=1) + 1e-3 * rng(5).normal(size=X.shape)
    forth, back = (read(X, Y, name) for name in ("linear_r2", "linear_r2_back"))
    assert forth > 0.99 > 0.95 > back
    assert read(Y, X, "linear_r2") == pytest.approx(back, rel=1e-10)


@pytest.mark.parametrize("distance", [angular_distance, gulp])
def test_distance_is_symmetric_and_obeys_the_triangle_inequality(distance):
    spaces = [rng(seed).normal(size=(60, 5)) @ rng(seed + 50).normal(size=(5, 5)) for seed in range(12)]
    d = np.array([[distance(PairMoments.from_blocks([(a, b)])) for b in spaces] for a in spaces])
    assert np.allclose(d, d.T, atol=1e-7)
    assert np.all(np.diag(d) < 1e-6)
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()


def test_one_minus_cka_is_no_metric():
    def distance(a, b):
        return 1 - read(a, b, "cka_biased")

    x, y = rng(1).normal(size=(200, 1)), rng(2).normal(size=(200, 1))
    between = np.concatenate([x, y], axis=1)
    assert distance(x, y) > distance(x, between) + distance(between, y)


def test_massive_row_lifts_cka_of_independent_rows_and_trimming_takes_it_back():
    X, Y = rng(1).normal(size=(300, 40)), rng(2).normal(size=(300, 40))
    X[0], Y[0] = 50 * X[0], 50 * Y[0]
    row = similarity((X, Y), measures=["cka_biased"]).rows[0]
    plain = similarity((X[1:], Y[1:]), measures=["cka_biased"]).rows[0]
    assert row.value > 0.9
    assert row.trimmed == pytest.approx(plain.value, rel=1e-10)
    assert row.trimmed < 0.2


def test_hsic_is_the_u_statistic_over_all_quadruples():
    """Song et al. 2012, eq. 4, by brute force over ordered quadruples of seven rows."""
    from itertools import permutations

    from taxlens.probes.similarity.cka import hsic

    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(7, 2)), rng.normal(size=(7, 3))
    K, L = X @ X.T, Y @ Y.T
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(7), 4)]
    m = PairMoments.from_blocks([(X, Y)])
    found = hsic(m.n, m.xy, m.sum_x, m.q_xy, m.u_xy, other=(m.sum_y, m.q_x, m.q_y, m.u_yx))
    assert found == pytest.approx(np.mean(terms))
