"""Numbers of the page: medians, shares and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.truth.page.sections import against_best
from benchmarks.truth.page.tables import middle, resampled, share


@pytest.mark.parametrize(("count", "total"), [(0, 110), (3, 20), (20, 20)])
def test_shares_carry_the_exact_binomial_interval(count, total):
    asked = binomtest(count, total).proportion_ci(method="exact")
    assert share(count, total) == f"{count} of {total} ({count / total:.1%} [{asked.low:.1%}, {asked.high:.1%}])"


def test_two_plants_have_no_interval_and_three_do():
    assert middle([1.0, 2.0]) == "1.50"
    assert middle([1.0, 2.0, 3.0]) == "2.00 [1.00, 3.00]"
    assert middle([None, float("nan")]) == "-"


def test_the_interval_holds_the_median_and_narrows_with_plants():
    few, many = (resampled(np.random.default_rng(0).normal(size=n)) for n in (8, 200))
    assert few[1] <= few[0] <= few[2]
    assert many[2] - many[1] < few[2] - few[1]


def plant(path, gradient, graft):
    rows = [("path", True, path), ("one gradient half way", False, gradient), ("graft", False, graft)]
    return {"rows": [{"method": m, "closes": c, "distance": d, "raw_distance": 2 * d} for m, c, d in rows]}


def test_the_nearest_method_that_does_not_close_is_the_one_compared_with():
    plants = [plant(0.1, 0.2, 0.5), plant(0.1, 0.2, 0.6)]
    best, ratio, median = against_best(plants)
    assert (best, ratio[0]) == ("one gradient half way", pytest.approx(2))
    assert median["graft"] == pytest.approx(0.55)
    assert against_best(plants, among=("graft",))[0] == "graft"
