"""Power of paired, grouped tests: against simulation and by its axioms."""

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.accuracy.paired_model import PairedModel
from taxlens.analysis.tax.ledger import Paired
from taxlens.analysis.tax.power import items_needed, measured_power, within_group_correlation
from taxlens.core.errors import UsageError
from taxlens.core.stats import intervals as stats


def test_items_needed_matches_the_textbook_formula():
    reach = norm.ppf(0.975) + norm.ppf(0.8)
    assert items_needed(0.05, changed=0.15).n_items == np.ceil(reach**2 * (0.15 - 0.0025) / 0.0025)


def test_promised_power_is_found_by_simulation():
    needed = items_needed(0.1, changed=0.3)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(200):
        loss = rng.choice([1.0, -1.0, 0.0], p=[0.2, 0.1, 0.7], size=needed.n_items)
        seen.append(abs(loss.mean()) > 1.96 * stats.cluster_standard_error(loss, np.arange(len(loss))))
    assert np.mean(seen) == pytest.approx(0.8, abs=0.09)


def test_groups_that_move_together_need_more_items_and_independent_ones_do_not():
    single = items_needed(0.05, changed=0.15)
    assert items_needed(0.05, changed=0.15, group_size=10).n_items == single.n_items
    grouped = items_needed(0.05, changed=0.15, group_size=10, icc=0.3)
    assert grouped.n_items == pytest.approx(3.7 * single.n_items, rel=0.01)
    assert grouped.n_groups == np.ceil(grouped.n_items / 10)


def test_a_tax_larger_than_what_changed_is_refused():
    with pytest.raises(UsageError, match="changed"):
        items_needed(0.2, changed=0.1)


def test_measured_power_grows_with_the_tax():
    base, aligned, groups = PairedModel().draw(0)
    items = tuple(map(str, range(len(groups))))
    found = measured_power(
        [Paired("s", "capability", "plain", items, groups, {"accuracy": base}, {"accuracy": aligned})]
    )
    frame = found.to_frame()
    assert frame["power"].is_monotonic_increasing
    assert frame["items_needed"].is_monotonic_decreasing
    assert "s (plain, accuracy) sees" in repr(found)


def test_suite_on_which_nothing_changed_has_no_power_to_report():
    ones, items = np.ones(4), ("a", "b", "c", "d")
    frame = measured_power(
        [Paired("s", "capability", "plain", items, np.arange(4), {"accuracy": ones}, {"accuracy": ones})]
    ).to_frame()
    assert frame["power"].isna().all()


def test_correlation_within_groups_is_one_for_copies_and_near_zero_for_noise():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(50), 6)
    assert within_group_correlation(rng.normal(size=50)[groups], groups) == pytest.approx(1)
    assert within_group_correlation(rng.normal(size=300), groups) < 0.1
    assert np.isnan(within_group_correlation(rng.normal(size=5), np.arange(5)))


def test_simulated_population_has_the_tax_it_states():
    model = PairedModel(n_groups=4000)
    base, aligned, _ = model.draw(1)
    assert (base - aligned).mean() == pytest.approx(model.tax, abs=0.01)
    assert PairedModel(shift=0.0).tax == 0
