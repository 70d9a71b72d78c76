"""The pages of the techniques say what the kept results say, and nothing else."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from benchmarks.real import technique_pages as pages
from benchmarks.real.account import taxed
from benchmarks.real.bill import CAPABILITIES


def row(suite="capitals", metric="nll", **values):
    given = {
        "suite": suite,
        "metric": metric,
        "template": "plain",
        "tax": 0.5,
        "low": 0.2,
        "high": 0.8,
        "p_adjusted": 0.001,
    }
    return given | values


def test_kept_results_have_every_suite_and_the_pages_on_disk_are_made_from_them(tmp_path):
    kept = pages.results()
    assert {"refusal"} <= set(kept)
    for one in kept.values():
        assert {r["suite"] for r in one["tax"]} >= set(CAPABILITIES)
        assert one["benefit"]["prompts"]["overrefusal"] >= 150
    for path in pages.write_pages(tmp_path):
        assert path.read_text() == (pages.DOCS / path.relative_to(tmp_path)).read_text()


def test_overview_has_a_row_for_every_setting_and_no_place_left_open():
    kept = pages.results()
    text = pages.overview(kept)
    assert "<!--" not in text
    assert len(re.findall(r"^\| \[.*\]\(techniques/", text, flags=re.M)) == len(kept)


@pytest.mark.parametrize(
    ("values", "bold"),
    [
        ({}, True),
        ({"low": -0.1}, False),
        ({"p_adjusted": 0.2}, False),
        ({"tax": -0.5, "low": -0.8, "high": -0.2}, True),
    ],
)
def test_a_tax_is_bold_only_where_interval_and_holm_are_clear(values, bold):
    assert pages.told(row(**values)).startswith("**") is bold


def test_a_cost_turned_round_swaps_its_ends():
    assert pages.told({"cost": 2.0, "low": 1.0, "high": 4.0}, -1.0, 1) in ("**-2.0 [-4.0, -1.0]**",)


def test_taxes_beyond_over_refusal_leave_out_gains_over_refusal_and_what_holm_does_not_clear():
    rows = [
        row(),
        row(suite="overrefusal"),
        row(tax=-1.0, low=-2.0, high=-0.5),
        row(p_adjusted=0.06),
        row(metric="accuracy"),
    ]
    assert pages.beyond({"tax": rows}) == [rows[0]]


def test_suite_to_diagnose_is_the_one_that_lost_most_in_probability():
    rows = [
        row(metric="probability"),
        row(suite="reading", metric="probability", tax=0.7),
        row(suite="overrefusal", metric="probability", tax=0.9),
    ]
    assert taxed({"tax": rows}) == "reading"
    assert taxed({"tax": [row(metric="probability", low=-0.1)]}) == ""


def with_effects(values):
    effects = {f"{n}.mlp": value for n, value in enumerate(values)}
    return {"attribution": {"overrefusal": {"effects": {"probability": effects}}}}


def test_same_profiles_have_cosine_one_and_opposite_ones_minus_one():
    text = "\n".join(
        pages.shared({"a": with_effects([1, 2, 3]), "b": with_effects([2, 4, 6]), "c": with_effects([-1, -2, -3])})
    )
    assert "1.00, 1.00 | -1.00, -1.00" in text


def test_thirds_of_the_depth_sum_to_the_effects():
    effects = {f"{layer}.{part}": 0.01 for layer in range(30) for part in ("attn", "mlp")}
    assert [float(x) for x in pages.thirds(effects).split(", ")] == pytest.approx([0.2] * 3)
    moved = copy.copy(effects) | {"29.mlp": 1.0}
    assert float(pages.thirds(moved).split(", ")[2]) == pytest.approx(1.19)
    assert np.isclose(sum(float(x) for x in pages.thirds(effects).split(", ")), sum(effects.values()))
