"""Which number stands in which column of the ledger: each was once exchanged for its neighbour and nothing failed."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.analysis.scoring.metrics import main_metric
from taxlens.analysis.tax.ledger import Paired, few_groups, tax_frame
from taxlens.analysis.tax.two_by_two import item_effects, two_by_two_frame
from taxlens.core.stats.intervals import holm, mcnemar_exact, sign_flip_p


def paired(base, aligned, groups, *, suite="s", template="plain", metric="accuracy"):
    items = tuple(f"i{n}" for n in range(len(base)))
    base, aligned = np.asarray(base, dtype=float), np.asarray(aligned, dtype=float)
    return Paired(
        suite, "capability", template, items, np.array(list(groups), dtype=object), {metric: base}, {metric: aligned}
    )


def test_the_templates_effect_is_taken_on_the_base():
    """base falls from 1.0 to .7 in chat, aligned from .6 to .1: the template is .3, weights .4, the rest interaction."""
    plain, chat = paired([1.0] * 4, [0.6] * 4, "abcd"), paired([0.7] * 4, [0.1] * 4, "abcd", template="chat")
    effects = item_effects(plain, chat, "accuracy").mean(axis=0)
    assert effects == pytest.approx([0.4, 0.3, 0.2, 0.9])
    frame = two_by_two_frame([plain, chat], bootstrap=100).set_index("effect")["value"]
    assert frame[["weights", "template", "interaction", "total"]].to_numpy() == pytest.approx([0.4, 0.3, 0.2, 0.9])


def test_holm_adjusts_the_p_that_flips_groups():
    """Items of a group flip together: McNemar counts them as many, the group test as one."""
    groups = np.repeat(np.arange(6), 4)
    rng = np.random.default_rng(0)
    measured = []
    for name, lost in (("a", 6), ("b", 5), ("c", 0)):
        aligned = np.where(groups < lost, 0.0, 1.0) if lost else rng.integers(0, 2, 24).astype(float)
        measured.append(paired(np.ones(24), aligned, groups, suite=name))
    frame = tax_frame(measured, bootstrap=100).set_index("suite")
    by_group = [sign_flip_p(one.loss("accuracy"), one.groups) for one in measured]
    by_item = [mcnemar_exact(int((one.loss("accuracy") > 0).sum()), 0) for one in measured]
    assert frame["p_group"].to_numpy() == pytest.approx(by_group)
    assert frame["p"].to_numpy() == pytest.approx(by_item)
    assert frame["p_adjusted"].to_numpy() == pytest.approx(holm(by_group))
    assert (np.abs(holm(by_group) - holm(by_item)) > 1e-3).any()


def test_unpaired_error_is_of_both_models():
    spread = np.tile([0.0, 1.0], 20)
    one = spread.std(ddof=1) / np.sqrt(40)
    for base, aligned, wanted in (
        (np.ones(40), spread, one), (spread, np.ones(40), one), (spread, spread[::-1], np.hypot(one, one)),
    ):  # fmt: skip
        frame = tax_frame([paired(base, aligned, np.arange(40))], bootstrap=100)
        assert frame["unpaired_error"].item() == pytest.approx(wanted)


def test_a_run_is_told_in_probability_or_its_first_metric():
    assert main_metric(["accuracy", "nll", "probability"]) == "probability"
    assert main_metric(["nll", "accuracy"]) == "nll"
    assert main_metric([]) == ""


def test_one_group_has_no_interval_and_says_so():
    single = paired([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], "aaaa")
    row = tax_frame([single], bootstrap=100).iloc[0]
    assert row["tax"] == 0.5
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["p_group"] == 1.0
    assert row["p_equivalent"] == 1.0
    assert few_groups([single]) == ["s: one group: no interval."]
    assert few_groups([paired([1.0, 0.0], [0.0, 0.0], "ab")])[0].startswith("s: only 2 groups")
    assert few_groups([paired(np.ones(12), np.ones(12), range(12))]) == []


def test_unchanged_models_show_no_tax_by_how_many_groups_there_are():
    small, large = (paired(np.ones(n), np.ones(n), np.arange(n)) for n in (4, 200))
    few, many = (tax_frame([one], bootstrap=100)["p_equivalent"].item() for one in (small, large))
    assert few > 0.9
    assert many < 0.05


def test_a_tax_that_is_rounding_is_not_told_from_none():
    rng = np.random.default_rng(1)
    base = rng.random(40)
    drift = paired(base, base - 2e-7 - 1e-8 * rng.random(40), np.arange(40), metric="probability")
    row = tax_frame([drift], bootstrap=200).iloc[0]
    assert row["low"] <= 0 <= row["high"]
    assert row["p"] == 1.0
    real = tax_frame(
        [paired(base, base - 1e-3 - 1e-4 * rng.random(40), np.arange(40), metric="probability")], bootstrap=200
    )
    assert real["low"].item() > 0
    assert real["p"].item() < 0.01
