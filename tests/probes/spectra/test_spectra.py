"""The spectra read planted attenuation and erasure, find their directions, and are silent on the null."""

import numpy as np
import pytest
import scipy.linalg

from taxlens.core.direction import Direction
from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.spectra.spectra import PENALTY, Spectrum, components, gain_spectrum, loss_spectrum, spectra

N, D = 2000, 64


@pytest.fixture(scope="module")
def world():
    """Base rows with a steep spectrum and a two-valued concept that holds 1 % of the variance."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
    X = (rng.normal(size=(N, D)) * np.arange(1, D + 1) ** -0.8) @ rotation
    v = rng.normal(size=D)
    v /= np.linalg.norm(v)
    label = rng.choice([-1.0, 1.0], size=N)
    X += np.outer(label, v) * np.sqrt(0.01 * X.var(0).sum())
    noise = 0.03 * X.std() * rng.normal(size=X.shape)
    return X + 2, v, noise


def attenuated(world, gain):
    X, v, noise = world
    return X - (1 - gain) * np.outer((X - X.mean(0)) @ v, v) + noise


def read(X, Y, **options):
    return spectra(gather((X, Y), np.arange(len(X)) // 4), layer=3, site="resid_post", **options)


@pytest.mark.parametrize("gain", [0.8, 0.5, 0.25, 0.0])
def test_planted_attenuation_is_read_and_its_direction_found(world, gain):
    X, v, _ = world
    found = read(X, attenuated(world, gain)).get("gain", 3)
    assert found.values[0] == pytest.approx(gain, abs=0.03)
    assert abs(found.directions[0] @ v) >= 0.95
    assert found.outside.tolist() == [0]


def test_total_erasure_is_found_by_the_loss_spectrum_too(world):
    X, v, _ = world
    found = read(X, attenuated(world, 0.0)).get("loss", 3)
    assert found.values[0] > 0.95
    assert abs(found.directions[0] @ v) >= 0.95
    assert found.outside.tolist() == [0]


@pytest.mark.parametrize("gain", [0.8, 0.5])
def test_loss_spectrum_is_blind_to_partial_attenuation(world, gain):
    found = read(world[0], attenuated(world, gain)).get("loss", 3)
    assert found.values[0] < 0.1


def test_noise_alone_leaves_both_spectra_inside_their_bands(world):
    X, _, noise = world
    found = read(X, X + noise)
    assert all(len(found.get(name, 3).outside) == 0 for name in ("gain", "loss"))


@pytest.mark.parametrize("seed", range(6))
def test_noise_that_repeats_within_groups_raises_no_alarm(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(800, 12)) * np.arange(1, 13) ** -0.5
    noise = np.repeat(0.3 * rng.normal(size=(200, 12)), 4, axis=0)
    found = read(X, X + noise)
    assert all(len(found.get(name, 3).outside) <= 1 for name in ("gain", "loss"))


def test_rotated_scaled_shifted_copy_has_a_flat_gain_and_no_loss(world):
    X, _, _ = world
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(D, D)))[0]
    found = read(X, 3 * X @ rotation - 1)
    assert np.allclose(found.get("gain", 3).values, 3, rtol=0.02)
    assert found.get("loss", 3).values[0] < 0.02


def test_base_against_itself_reads_one_and_zero_inside_the_band(world):
    X, _, _ = world
    found = read(X, X)
    assert np.allclose(found.get("gain", 3).values, 1, atol=0.02)
    assert found.get("loss", 3).values[0] < 0.02
    assert all(len(found.get(name, 3).outside) == 0 for name in ("gain", "loss"))


def test_a_large_penalty_reads_loss_where_there_is_none(world):
    X, _, noise = world
    assert read(X, X + noise, penalty=0.1).get("loss", 3).values[0] > 0.3
    assert read(X, X + noise).get("loss", 3).values[0] < 0.1


def test_gain_equals_ridge_on_principal_component_scores(world):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    X = world[0]
    Y = attenuated(world, 0.5)
    moments = PairMoments.from_blocks([(X, Y)])
    basis = components(moments.cov_xx(), moments.cov_yy(), N)
    values, directions = gain_spectrum(basis, moments.cov_xy())
    pca = PCA(n_components=0.99, svd_solver="full").fit(X)
    assert len(values) == pca.n_components_
    ridge = Ridge(alpha=N * PENALTY * X.var(0).mean(), solver="svd").fit(pca.transform(X), Y)
    left, reference, _ = np.linalg.svd(ridge.coef_.T, full_matrices=False)
    np.testing.assert_allclose(values, reference[::-1], rtol=1e-8)
    weakest = left[:, -1] @ pca.components_
    assert abs(directions[0] @ weakest) == pytest.approx(1, abs=1e-8)


def test_loss_equals_generalised_eigenvalues_and_sines_of_principal_angles(world):
    X, _, noise = world
    X = X[:, :8]
    Y = X @ np.diag([1, 1, 1, 1, 1, 1, 0.1, 0]) + noise[:, :8]
    m = PairMoments.from_blocks([(X, Y)])
    A, B, C = m.cov_xx(), m.cov_yy(), m.cov_xy()
    for penalty in (PENALTY, 0.0):
        basis = components(A, B, N, variance=1 - 1e-12, penalty=penalty)
        values, patterns = loss_spectrum(basis, C, B)
        residual = A - C @ np.linalg.inv(B + penalty * np.trace(B) / 8 * np.eye(8)) @ C.T
        reference, readouts = scipy.linalg.eigh(residual, A)
        np.testing.assert_allclose(values, reference[::-1], rtol=1e-8, atol=1e-12)
        expected = A @ readouts[:, -1]
        assert abs(patterns[0] @ expected) / np.linalg.norm(expected) == pytest.approx(1, abs=1e-8)
    angles = scipy.linalg.subspace_angles(X - X.mean(0), Y - Y.mean(0))
    np.testing.assert_allclose(np.sort(values), np.sort(np.sin(angles) ** 2), rtol=1e-7, atol=1e-12)


def test_directions_are_unit_rows_that_say_where_they_come_from(world):
    found = read(world[0], attenuated(world, 0.5)).get("gain", 3)
    assert np.allclose(np.linalg.norm(found.directions, axis=1), 1)
    direction = found.direction(0)
    assert isinstance(direction, Direction)
    assert direction.address == "resid_post.3"
    assert direction.source["spectrum"] == "gain"
    assert direction.source["rank"] == 0


def test_few_rows_leave_out_the_loss_spectrum_and_say_why(world):
    X, _, noise = world
    found = read(X[:80], X[:80] + noise[:80])
    assert [s.name for s in found.spectra] == ["gain"]
    assert "fewer than 2 a dimension" in found.notes[0]
    assert "bands are wide" in read(X[:200], X[:200] + noise[:200]).notes[0]
    assert read(X, X + noise).notes == ()


def test_same_seed_gives_the_same_table_and_layers_join(world):
    X, _, noise = world
    first, second = (read(X, X + noise).to_frame() for _ in range(2))
    assert first.equals(second)
    assert list(first.columns[:6]) == ["layer", "spectrum", "rank", "value", "null_low", "null_high"]
    both = read(X, X + noise) + spectra(gather((X, X)), layer=4)
    assert sorted(both.to_frame().layer.unique()) == [3, 4]
    assert "gain" in repr(both)


def test_exchanging_the_models_by_group_is_no_null_for_an_erased_direction(world):
    """Why residual flips are: a swapped pair itself reads a loss where a direction was erased."""
    X = world[0]
    Y = attenuated(world, 0.0)
    swap = (np.arange(N) // 4 % 2 == 0)[:, None]
    found = read(np.where(swap, Y, X), np.where(swap, X, Y))
    assert found.get("gain", 3).values[0] < 0.5
    assert found.get("loss", 3).values[0] > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_model_against_itself_leaves_no_band(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), 6)
    X = (rng.normal(size=(60, 40))[groups] + 0.3 * rng.normal(size=(360, 40))) * np.arange(1, 41) ** -1.0
    found = spectra(gather((X, X), groups))
    assert all(len(one.outside) == 0 for one in found.spectra)


def test_a_weakening_within_a_thousandth_of_the_band_is_none():
    plain = Spectrum("gain", 0, "", np.array([0.8995, 0.95]), np.full(2, 0.9), np.ones(2), np.eye(2), 100)
    weak = Spectrum("gain", 0, "", np.array([0.8985, 0.95]), np.full(2, 0.9), np.ones(2), np.eye(2), 100)
    assert (len(plain.outside), len(weak.outside)) == (0, 1)


def test_the_null_band_is_students_prediction_of_one_more_value():
    from scipy.stats import t

    from taxlens.probes.spectra.spectra import _band

    drawn = np.random.default_rng(0).normal(1.0, 0.2, (5, 3))
    low, high = _band(drawn, 0.95)
    reach = t.ppf(0.975, 4) * drawn.std(0, ddof=1) * np.sqrt(1 + 1 / 5)
    assert low == pytest.approx(drawn.mean(0) - reach)
    assert high == pytest.approx(drawn.mean(0) + reach)
