"""One seeded foil and one way to take fewer items, whoever asks."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.sampling import at_most, draw_foil

ROOT = Path(__file__).parents[3]


def lopsided():
    """40 items of one group and 2 each of ten others."""
    groups = ["big"] * 40 + [f"g{n // 2}" for n in range(20)]
    items = [Item(f"i{n}", g, f"w{n}", choices=(" a", " b", " c", " d"), gold=n % 4) for n, g in enumerate(groups)]
    return Suite("toy", tuple(items))


def test_a_foil_is_none_of_several_right_choices():
    items = [Item(f"i{n}", "g", "w", choices=(" a", " b", " c", " d"), gold=0, also_right=(2,)) for n in range(60)]
    assert {draw_foil("toy", item, 0) for item in items} == {1, 3}


def test_foil_is_a_wrong_choice_that_hangs_on_seed_suite_and_item_alone():
    suite = lopsided()
    drawn = [draw_foil("toy", item, 0) for item in suite.items]
    assert all(foil != item.gold for foil, item in zip(drawn, suite.items, strict=True))
    assert drawn[::-1] == [draw_foil("toy", item, 0) for item in suite.items[::-1]]
    assert drawn != [draw_foil("toy", item, 1) for item in suite.items]
    assert drawn != [draw_foil("other", item, 0) for item in suite.items]
    counts = np.bincount([(foil - item.gold) % 4 for foil, item in zip(drawn, suite.items, strict=True)], minlength=4)
    assert counts[1:].min() >= 10


def test_few_items_come_from_many_groups():
    suite = lopsided()
    few = at_most(suite, 11)
    assert len(few) == 11
    assert len(set(few.groups)) == 11
    assert [i.id for i in few.items] == sorted((i.id for i in few.items), key=lambda name: int(name[1:]))
    assert at_most(suite, "all") is suite
    assert at_most(suite, 60) is suite
    assert [i.id for i in at_most(suite, 11, seed=1).items] != [i.id for i in few.items]


def test_no_module_draws_items_or_foils_of_its_own():
    """Slices of a suite by hand, linspaces over it and own foils were how the copies drifted apart."""
    known = {"sampling.py"}
    for folder in ("activations", "analysis", "taxlens/stages"):
        for path in (ROOT / folder).rglob("*.py"):
            names = {
                n.name for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)
            }
            assert not names & {"foil", "draw_foil", "drawn", "at_most"} or path.name in known, path
