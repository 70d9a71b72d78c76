"""The embedded suites for real models: right, balanced, grouped, unchanged."""

import ast
from collections import Counter

import pytest

from taxlens import suites
from taxlens.core.errors import ConfigError
from taxlens.inputs.resolve import resolve_suite

DIGESTS = {
    "suite:capitals": "70fb56e94d9f",
    "suite:arithmetic": "889cf34e177a",
    "suite:agreement": "40ed13584b9b",
    "suite:translation": "11ba4b46b027",
    "suite:common_sense": "1dadc82c5204",
    "suite:format": "d3b9b2e846dd",
    "suite:lookalikes": "a870a4d8b02f",
    "suite:refuse_harmful": "7c8f8266ea95",
}


@pytest.fixture(params=suites.names())
def suite(request):
    return suites.load(request.param)


def test_every_suite_has_150_items_in_20_groups_or_more(suite):
    assert len(suite) >= 150
    assert len(set(suite.groups)) >= 20


def test_choices_of_an_item_differ_even_without_case_of_space(suite):
    for item in suite.items:
        assert len({choice.strip() for choice in item.choices}) == len(item.choices), item.id
        assert all(choice.startswith(" ") for choice in item.choices), item.id


def test_no_prompt_is_asked_twice(suite):
    assert max(Counter(item.prompt for item in suite.items).values()) == 1


def test_place_of_the_right_choice_tells_nothing(suite):
    most = max(len(item.choices) for item in suite.items)
    counts = Counter(item.gold for item in suite.items)
    assert max(counts.values()) <= len(suite) / most * 1.35


def test_items_are_the_same_on_every_machine(suite):
    assert suite.sha256.startswith(DIGESTS[suite.source])


def test_arithmetic_is_right_and_its_foils_are_wrong():
    for item in suites.load("arithmetic").items:
        text = item.prompt.removesuffix(" =").replace("x", "*")
        left, sign, right = text.split()
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
        assert [ast.literal_eval(choice.strip()) == value for choice in item.choices].index(True) == item.gold
        assert sum(int(choice) == value for choice in item.choices) == 1


def test_each_capital_belongs_to_one_country():
    items = suites.load("capitals").items
    named = [item for item in items if item.labels["way"] == "of"]
    answers = Counter(item.choices[item.gold] for item in named)
    assert max(answers.values()) == 1


def test_agreement_is_with_the_subject_and_half_of_the_distractors_differ():
    items = suites.load("agreement").items
    assert Counter(item.choices[item.gold] for item in items) == {" is": 80, " are": 80}


KEEPS = {
    "capitals": str.isupper,
    "quotes": lambda text: '"' in text,
    "brackets": lambda text: "(" in text,
    "stars": lambda text: "*" in text,
    "exclaimed": lambda text: "!" in text,
    "json": lambda text: "{" in text,
}


def test_one_choice_alone_keeps_the_asked_format():
    for item in suites.load("format").items:
        kept = [KEEPS[item.labels["format"]](choice) for choice in item.choices]
        assert kept == [place == item.gold for place in range(len(kept))], item.id


def test_length_of_the_right_choice_tells_little(suite):
    longest = [max(range(len(i.choices)), key=lambda k: len(i.choices[k])) == i.gold for i in suite.items]
    if suite.name in ("lookalikes", "refuse_harmful"):  # two fixed openings: one is always the longer
        assert len(set(longest)) == 1
    else:
        assert sum(longest) <= 0.6 * len(suite)


def test_two_suites_ask_the_same_way_and_want_opposite_answers():
    harm, look = suites.load("refuse_harmful"), suites.load("lookalikes")
    assert (harm.kind, look.kind) == ("benefit", "capability")
    assert {item.choices[item.gold] for item in harm.items}.isdisjoint({item.choices[item.gold] for item in look.items})
    assert set(harm.groups).isdisjoint(look.groups)


def test_unknown_suite_names_the_nearest():
    with pytest.raises(ConfigError, match="'capitals'"):
        suites.load("suite:capitls")


def test_embedded_benefits_are_benefits_unless_a_config_says_otherwise():
    from taxlens import suite
    from taxlens.config.schema import SuiteSection

    assert suite("suite:refuse_harmful").kind == suite("demo:harm").kind == "benefit"
    assert suite("suite:lookalikes").kind == SuiteSection(name="a", file="suite:lookalikes").kind == "capability"
    assert SuiteSection(name="a", file="suite:refuse_harmful").kind == "benefit"
    assert SuiteSection(name="a", file="suite:refuse_harmful", kind="capability").kind == "capability"


def test_a_config_can_name_an_embedded_suite():
    found = resolve_suite("geo", "suite:capitals", kind="capability", root=".")
    assert (found.name, len(found)) == ("geo", 214)


def test_the_last_words_of_refusing_and_complying_are_the_same():
    """A probe at the last token could otherwise read the answer off its ending."""
    for name in ("lookalikes", "refuse_harmful"):
        for item in suites.load(name).items:
            assert len({choice.split()[-1] for choice in item.choices}) == 1
