"""All the other taxes of a list of suites in one call."""

import pytest

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.answers.taxes import measure_other_taxes


@pytest.fixture(scope="module")
def found(fake_pair, word_suite):
    few = word_suite.subset(range(8))
    return measure_other_taxes(fake_pair, [(few, "plain"), (few, "chat")], max_new_tokens=3, samples=2)


def test_every_table_holds_both_suites(found):
    assert found.tax["template"].tolist() == ["plain", "chat"]
    assert (found.tax["metric"] == "exact_match").all()
    assert set(found.divergence["template"]) == {"plain", "chat"}
    assert len(found.answers) == 2 * 2 * 8
    measures = found.costs[found.costs["template"] == "plain"]["measure"]
    assert set(measures) >= {"refusal_rate", "tokens", "seconds_per_item", "entropy", "distinct_1", "compression"}


def test_nothing_asked_gives_empty_tables(fake_pair):
    found = measure_other_taxes(fake_pair, [])
    assert all(len(getattr(found, name)) == 0 for name in found.__slots__)


def test_prompts_without_gold_have_costs_and_no_exact_match(fake_pair):
    suite = Suite("open", (Item("a", "a", "w1 w2"), Item("b", "b", "w3")))
    found = measure_other_taxes(fake_pair, [(suite, "plain")], max_new_tokens=2)
    assert len(found.tax) == 0
    assert set(found.costs["measure"]) == {"refusal_rate", "tokens", "seconds_per_item"}
