"""What the intervals and tests promise, on simulated paired suites with group effects."""

import numpy as np
import pytest

from taxlens.core.stats import intervals as stats

GROUPS = np.repeat(np.arange(40), 5)


def suite(seed, *, shift, group=0.0):
    """Base and aligned right or wrong on 200 items in 40 groups; the models differ by ``shift`` in the latent."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.7, 40)[GROUPS] + rng.normal(size=200)
    right = []
    for mean in (0.8, 0.8 - shift):
        own = rng.normal(0, group, 40)[GROUPS] if group else 0.0
        right.append((mean + shared + own + rng.normal(0, 0.7, 200) > 0).astype(float))
    return right[0] - right[1]


def truth(shift, group=0.0):
    from scipy.special import ndtr

    spread = np.sqrt(0.7**2 + 1 + group**2 + 0.7**2)
    return ndtr(0.8 / spread) - ndtr((0.8 - shift) / spread)


def rate(test, seeds):
    return np.mean([test(seed) for seed in seeds])


def misses(seed, groups, value, *, shift, group):
    return stats.mean_interval(suite(seed, shift=shift, group=group), groups, draws=500).excludes(value)


def mcnemar_alarm(seed, group=0.0):
    loss = suite(seed, shift=0.0, group=group)
    return stats.mcnemar_exact(int((loss > 0).sum()), int((loss < 0).sum())) < 0.05


def test_interval_covers_the_truth_of_most_suites():
    value = truth(0.3, 0.5)
    assert rate(lambda seed: misses(seed, GROUPS, value, shift=0.3, group=0.5), range(150)) < 0.11


def test_interval_that_ignores_groups_does_not():
    value = truth(0.3, 0.9)
    wrong = rate(lambda seed: misses(seed, np.arange(200), value, shift=0.3, group=0.9), range(150))
    assert wrong > 0.12


@pytest.mark.slow
def test_coverage_of_500_suites_is_between_93_and_97_percent():
    value = truth(0.3, 0.5)
    missed = rate(lambda seed: misses(seed, GROUPS, value, shift=0.3, group=0.5), range(1000, 1500))
    assert 0.93 <= 1 - missed <= 0.97


@pytest.mark.slow
def test_false_alarms_of_500_null_pairs_stay_near_the_level():
    seeds = range(2000, 2500)
    assert 0.025 <= rate(lambda seed: misses(seed, GROUPS, 0.0, shift=0.0, group=0.5), seeds) <= 0.08
    assert rate(mcnemar_alarm, seeds) <= 0.07
    flip = rate(lambda s: stats.sign_flip_p(suite(s, shift=0, group=0.5), GROUPS, draws=499) < 0.05, seeds)
    assert flip <= 0.07


@pytest.mark.slow
def test_mcnemar_cries_wolf_where_groups_flip_together():
    assert rate(lambda seed: mcnemar_alarm(seed, group=0.9), range(3000, 3500)) > 0.07
