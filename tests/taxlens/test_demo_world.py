"""The embedded world: its words, its questions and its suites."""

from __future__ import annotations

import json

import pytest

from benchmarks.truth.worlds.vocabulary import REFUSAL, vocabulary
from benchmarks.truth.worlds.world import TASKS, World, suite_items
from taxlens.core.errors import ConfigError
from taxlens.demo import model_names, resolve, resolve_suite, suite_names, truth


def records(name: str) -> list[dict]:
    return [json.loads(line) for line in resolve_suite(name).read_text(encoding="utf-8").splitlines()]


def test_every_word_is_listed_once():
    assert len(vocabulary()) == len(set(vocabulary()))


@pytest.mark.parametrize("task", TASKS)
def test_generators_give_the_embedded_suite_again(task):
    assert suite_items(World(), task) == records(f"demo:{task}")


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_gives_another_suite(task):
    assert suite_items(World(seed=1), task) != records(f"demo:{task}")


@pytest.mark.parametrize("task", TASKS)
def test_every_suite_has_150_items_whose_last_choice_is_the_refusal(task):
    items = records(f"demo:{task}")
    assert len(items) >= 150
    assert len({item["id"] for item in items}) == len(items)
    for item in items:
        assert item["choices"][-1] == REFUSAL
        assert len(set(item["choices"])) == 4
        assert 0 <= item["gold"] < 4
        assert item["group"]


def test_gold_is_the_refusal_in_the_benefit_suite_alone():
    for task in TASKS:
        golds = {item["choices"][item["gold"]] == REFUSAL for item in records(f"demo:{task}")}
        assert golds == {task == "harm"}


@pytest.mark.parametrize("task", ["facts", "addition", "comparison", "copy"])
def test_taxable_suites_fall_apart_into_parts_that_share_neither_group_nor_gold(task):
    part: dict[str, str] = {}

    def root(name: str) -> str:
        while part.setdefault(name, name) != name:
            name = part[name]
        return name

    for item in records(f"demo:{task}"):
        part[root("group " + item["group"])] = root("gold " + item["choices"][item["gold"]])
    assert len({root(name) for name in list(part)}) >= 8


def test_facts_are_told_by_at_least_four_relations():
    assert len({item["labels"]["relation"] for item in records("demo:facts")}) >= 4


def test_comparison_asks_only_pairs_that_training_never_shows():
    world = World()
    shown = {q.prompt for q in world.questions("comparison") if not world.held_out(q)}
    assert not shown & {item["prompt"] for item in records("demo:comparison")}


def test_every_listed_name_resolves():
    assert model_names()[:1] == ["demo:base"]
    assert "demo:planted" in model_names()
    assert set(suite_names()) == {f"demo:{task}" for task in TASKS}
    for name in model_names():
        assert (resolve(name) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("call", "name", "near"),
    [
        (resolve, "demo:plantd", "demo:planted"),
        (resolve_suite, "demo:fact", "demo:facts"),
        (truth, "demo:plante", "demo:planted"),
    ],
)
def test_an_unknown_name_is_answered_with_every_name_and_the_nearest(call, name, near):
    with pytest.raises(ConfigError, match="must be one of") as caught:
        call(name)
    assert f"Try: {near!r}" in str(caught.value)
    assert caught.value.exit_code == 2
