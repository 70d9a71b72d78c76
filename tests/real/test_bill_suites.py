"""The suites of the techniques' bill: counts, balanced ends, and a last token that gives the right answer away in none."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real.bill import ASKED, CAPABILITIES, METRICS, suite_of
from benchmarks.real.bill_suites import even, prose, reading
from benchmarks.real.suites import OUT as SMOLLM2
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.items.sampling import draw_foil
from taxlens.config.schema import load_config
from taxlens.runs.checking import CheckContext

CONFIGS = Path(__file__).parents[2] / "configs" / "techniques"


def by_last_token(suite: Suite) -> float:
    """Share of items whose right choice and foil are told apart by the last token alone, held out by group; ties are halves."""
    texts = {i.id: (i.choices[i.gold], i.choices[draw_foil(suite.name, i, 0)]) for i in suite.items}
    ends = {
        key: tuple(text.split()[-1] if text[-1].isalnum() else text[-1] for text in two) for key, two in texts.items()
    }
    counts = {side: Counter(end[side] for end in ends.values()) for side in (0, 1)}
    found = []
    for group in dict.fromkeys(suite.groups):
        mine = [i.id for i in suite.items if i.group == group]
        here = {side: Counter(ends[key][side] for key in mine) for side in (0, 1)}
        score = {
            token: counts[0][token] - here[0][token] - counts[1][token] + here[1][token]
            for key in mine
            for token in ends[key]
        }
        found += [0.5 + 0.5 * np.sign(score[ends[key][0]] - score[ends[key][1]]) for key in mine]
    return float(np.mean(found))


@pytest.mark.parametrize("name", [*CAPABILITIES, *ASKED])
def test_last_token_alone_does_not_give_the_right_choice_away(name):
    assert by_last_token(suite_of(name)) < 0.65


@pytest.mark.parametrize("name", ["overrefusal", "harm", "harmless"])
def test_it_does_in_the_suite_whose_ends_were_not_made_alike(name):
    assert by_last_token(read_suite(SMOLLM2 / f"{name}.jsonl", name=name)) > 0.8


@pytest.mark.parametrize("name", list(ASKED))
def test_asked_suites_have_150_prompts_and_one_end(name):
    suite = suite_of(name)
    assert len(suite) == 150
    assert {choice[-1] for item in suite.items for choice in item.choices} == {"."}


def test_gold_stands_about_as_often_at_each_place():
    for name in ("capitals", "arithmetic", "translation", "common_sense", "reading", "prose"):
        places = Counter(item.gold for item in suite_of(name).items)
        assert min(places.values()) > len(suite_of(name)) / (2 * len(suite_of(name).items[0].choices)) - 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" To burn a candle well, you need to place a", " To burn a candle well."),
        (" I can't do that. If there is something else, ask.", " I can't do that."),
        (" There are several steps to take", " There are several steps to take."),
        (" 1. Bonjour\n2. Salut", " 1. Bonjour 2. Salut."),
    ],
)
def test_even_keeps_the_first_sentence_and_ends_it(text, expected):
    assert even(text) == expected


def test_reading_asks_for_what_the_passage_says_and_for_nothing_else():
    for entry in reading():
        gold = entry["choices"][entry["gold"]].strip()
        thing = entry["prompt"].split(" is still in the")[0].rsplit("The ", 1)[1]
        assert f"left the {thing} in the {gold}." in entry["prompt"]
        assert len(set(entry["choices"])) == 4


def test_prose_foils_are_the_same_words():
    for entry in prose():
        one, two = (Counter(choice.split()) for choice in entry["choices"])
        assert one == two


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_config_asks_the_bills_suites_in_its_metrics(path):
    config = load_config(path)
    assert {suite.name for suite in config.suites} == {*CAPABILITIES, *ASKED}
    assert config.tax.metrics == METRICS
    assert len(CheckContext(config, path.parent).suites) == len(config.suites)
    assert (path.parent / config.pair.adapter / "adapter_model.safetensors").exists()


def test_suites_on_disk_are_what_the_command_makes():
    kept = [json.loads(line) for line in (CONFIGS / "suites" / "reading.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "id"} for row in kept] == reading()
