"""Movement from base to aligned: its energies, from moments that may still grow."""

import numpy as np

from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.drift import difference_energy, effective_rank


def test_a_spectrum_read_before_more_rows_came_is_not_read_again():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(80, 6)), rng.normal(size=(80, 6))
    moments = PairMoments.from_blocks([(X[:40], Y[:40])])
    first = difference_energy(moments)
    moments.update(X[40:], Y[40:])
    whole = np.linalg.eigvalsh((Y - X).T @ (Y - X) / 80)[::-1]
    np.testing.assert_allclose(difference_energy(moments), whole, rtol=1e-10)
    assert not np.allclose(first, whole)


def test_effective_rank_is_one_for_a_shift_of_all_rows_and_grows_to_the_width():
    rng = np.random.default_rng(1)
    X, line = rng.normal(size=(5000, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    moved = PairMoments.from_blocks([(X, X + line)])
    assert effective_rank(difference_energy(moved)) < 1 + 1e-6
    spread = PairMoments.from_blocks([(X, X + rng.normal(size=X.shape))])
    assert 3.95 < effective_rank(difference_energy(spread)) <= 4
