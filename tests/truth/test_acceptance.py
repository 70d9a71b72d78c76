"""What each family asks of a plant, with a plant that fails it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.truth.plants.acceptance import alone, family_holds

PLAIN = {"rank": 32, "norm": 5.0}


def test_alone_reads_single_coalitions():
    table = np.array([1.0, 0.9, 0.6, 0.5])  # bits: first, second
    assert alone(table, ["0.mlp", "1.mlp"], ["1.mlp"]) == {"1.mlp": pytest.approx(0.8)}


@pytest.mark.parametrize(
    ("family", "good", "bad"),
    [
        ("P2 redundant", (0.9, 0.85), (0.9, 0.3)),
        ("P3 synergy", (0.1, 0.05), (0.1, 0.5)),
        ("P4 cancelling", (3.0, 0.0), (1.0, 0.0)),
        ("P5 spread", (0.1, 0.3), (0.1, 0.9)),
    ],
)
def test_families_of_several_parts_ask_for_their_single_effects(family, good, bad):
    named = [dict(zip(("1.mlp", "2.mlp"), shares)) for shares in (good, bad)]
    assert family_holds(family, named[0], PLAIN)
    assert not family_holds(family, named[1], PLAIN)


@pytest.mark.parametrize(
    ("family", "good"),
    [("P6 rank one", {"rank": 1}), ("P8 hidden norm", {"norm": 1.0}), ("P10 adapter", {"rank": 4})],
)
def test_families_of_one_form_ask_for_that_form(family, good):
    assert family_holds(family, {"2.mlp": 1.0}, PLAIN | good)
    assert not family_holds(family, {"2.mlp": 1.0}, PLAIN)


def test_plants_of_the_first_family_are_judged_by_the_two_tests_alone():
    assert family_holds("P1, larger decoy", {"2.mlp": 0.1}, PLAIN)
