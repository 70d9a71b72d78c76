"""Right or wrong by generation: accepted answers, rules, thinking; and several right choices by score."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.answers.matching import is_right
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.errors import ItemError, UsageError


@pytest.mark.parametrize(
    ("match", "answer", "right"),
    [
        ("", "Paris, of course", True), ("", "Parisian", False), ("exact", "Paris.", True), ("exact", "Paris it is", False),
        ("contains", "It is Paris", True), ("", "<think>Rome?</think>Paris", True), ("", "<think>Paris", False),
    ],
)  # fmt: skip
def test_an_answer_counts_by_its_items_rule(match, answer, right):
    assert is_right(answer, Item("a", "g", prompt="?", answers=("Paris",), match=match)) is right


@pytest.mark.parametrize(
    ("match", "answer", "right"),
    [
        ("gsm8k", "2 + 3 = 5\n#### 1,005.", True),
        ("gsm8k", "It is 1005", False),
        ("number", "first 3, then $1005", True),
        ("number", "1005 or 4", False),
    ],
)
def test_numbers_count_as_the_harness_counts_them(match, answer, right):
    assert is_right(answer, Item("a", "g", prompt="?", answers=("1005",), match=match)) is right


def test_an_unknown_rule_is_refused():
    with pytest.raises(ItemError, match="match of an item"):
        is_right("a", Item("a", "g", prompt="?", answers=("a",), match="vibes"))


def test_several_right_choices_are_any_for_accuracy_and_all_for_probability(make_model, word_tokenizer):
    items = [
        Item(str(n), "g", prompt=f"w{n} w1", choices=(" w5", " w6", " w7", " w8"), gold=2, also_right=(0,))
        for n in range(6)
    ]
    scores = score_suite(make_model("llama"), Suite("s", tuple(items)), tokenizer=word_tokenizer)
    found = scores.metrics(["accuracy", "probability", "margin", "nll"])
    best = scores.logp.argmax(1)
    assert found["accuracy"].tolist() == [float(b in (0, 2)) for b in best]
    shares = np.exp(scores.logp) / np.exp(scores.logp).sum(1, keepdims=True)
    assert found["probability"] == pytest.approx(shares[:, 0] + shares[:, 2])
    assert found["margin"] == pytest.approx(scores.logp[:, [0, 2]].max(1) - scores.logp[:, [1, 3]].max(1))
    assert found["nll"] == pytest.approx(-np.log(np.exp(scores.logp[:, [0, 2]]).sum(1)))


def test_several_right_choices_are_not_attributed(fake_pair):
    item = Item("a", "g", prompt="w1", choices=(" w5", " w6", " w7"), gold=0, also_right=(1,))
    with pytest.raises(UsageError, match="several right choices"):
        attribute(fake_pair, Suite("s", (item,)))
