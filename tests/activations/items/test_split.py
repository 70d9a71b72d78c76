"""Halves of a suite share neither a group nor an answer, and what they share still is reported."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.activations.items.holdout import gold_text, leak_report, split_suite
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.sampling import at_most
from taxlens.core.errors import ItemError, UsageError


def suite(groups, golds, name="toy"):
    items = [
        Item(f"{i}", str(g), f"what is {i} of {g}", choices=(f" {a}", " nothing"), gold=0)
        for i, (g, a) in enumerate(zip(groups, golds))
    ]
    return Suite(name, tuple(items))


def sides(toy, halves):
    return [[toy.items[i] for i in side] for side in (halves.train, halves.held)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=30, max_size=60), st.integers(0, 5))
def test_halves_share_no_group_and_where_said_no_answer(pairs, seed):
    toy = suite(*zip(*pairs))
    try:
        halves = split_suite(toy, seed=seed)
    except ItemError:
        return
    train, held = sides(toy, halves)
    assert not {i.group for i in train} & {i.group for i in held}
    if "gold" in halves.keys:
        assert not {gold_text(i) for i in train} & {gold_text(i) for i in held}
    every = np.concatenate([halves.train, halves.held, halves.dropped])
    assert sorted(every) == list(range(len(toy)))


def test_no_item_is_dropped_where_groups_have_their_own_answers():
    halves = split_suite(suite(np.arange(40) // 4, np.arange(40) // 4))
    assert len(halves.dropped) == 0
    assert len(halves.train) == len(halves.held) == 20
    assert halves.held_out == "answers"


def test_one_answer_for_all_leaves_halves_disjoint_in_group_alone():
    halves = split_suite(suite(np.arange(40) // 4, np.zeros(40, dtype=int)))
    assert halves.keys == ("group",)
    assert halves.held_out == "items"


def test_the_same_seed_gives_the_same_halves_and_another_seed_others():
    toy = suite(np.arange(40) // 2, np.arange(40) // 2)
    first, again, other = (split_suite(toy, seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.held, again.held)
    assert not np.array_equal(first.held, other.held)


def test_the_leak_report_finds_nothing_in_what_was_kept_apart():
    toy = suite(np.arange(40) // 4, np.arange(40) // 4)
    report = leak_report([toy], [split_suite(toy)]).set_index("key")
    assert report.loc[["group", "gold", "prompt"], "shared"].tolist() == [0, 0, 0]
    assert report.loc["gold", "kept_apart"]


def test_the_leak_report_counts_answers_that_both_halves_have():
    toy = suite(np.arange(40) // 4, np.zeros(40, dtype=int))
    report = leak_report([toy], [split_suite(toy)]).set_index("key")
    assert report.loc["gold", "share"] == 1
    assert not report.loc["gold", "kept_apart"]


def test_a_suite_of_one_group_is_too_few_to_split():
    with pytest.raises(ItemError, match="too few items or groups to split"):
        split_suite(suite(np.zeros(40, dtype=int), np.arange(40)))


def test_an_unknown_key_is_refused():
    with pytest.raises(UsageError, match="split key"):
        split_suite(suite(np.arange(10), np.arange(10)), disjoint=("golden",))


def test_a_small_sample_is_spread_over_all_groups():
    toy = suite(np.arange(60) // 10, np.arange(60))
    few = at_most(toy, 12, seed=3)
    assert sorted(np.unique(few.groups, return_counts=True)[1]) == [2] * 6
    assert at_most(toy, 4, seed=3).groups.tolist() != at_most(toy, 4, seed=4).groups.tolist()
    assert len(set(at_most(toy, 4, seed=3).groups)) == 4
    assert at_most(toy, 60) is toy


def test_a_large_group_fills_what_small_groups_leave():
    toy = suite([0] * 10 + [1, 2], np.arange(12))
    few = at_most(toy, 6)
    assert sorted(few.groups.tolist()) == ["0"] * 4 + ["1", "2"]
    assert [item.id for item in few.items] == sorted((item.id for item in few.items), key=int)
