"""The shipped suites, adapters and configs of the real pair are whole and fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from benchmarks.real import refusal_lora
from taxlens.activations.items.holdout import split_suite
from taxlens.activations.items.items import read_suite
from taxlens.config.schema import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
SUITES = {"cities": 60, "agreement": 40, "overrefusal": 15, "harm": 100, "harmless": 100}
ADAPTERS = (
    "smollm2/selective-0",
    *(f"techniques/{n}" for n in ("preference", "constitutional", "adversarial", "chain")),
)
LIMIT = 25_000_000
"""Most bytes of adapters in the repository."""


@pytest.fixture(params=sorted(SUITES))
def suite(request):
    return read_suite(CONFIGS / "smollm2" / f"{request.param}.jsonl")


def test_suite_has_at_least_150_items_in_many_groups(suite):
    assert len(suite) >= 150
    assert len(set(suite.groups)) >= SUITES[suite.name]


def test_suite_ids_carry_its_name(suite):
    assert all(item.id == f"{suite.name}/{n}" for n, item in enumerate(suite.items))


def test_choices_begin_with_a_space_and_prompts_do_not_end_with_one(suite):
    assert all(choice.startswith(" ") and choice[1:].strip() for item in suite.items for choice in item.choices)
    assert all(item.prompt == item.prompt.strip() for item in suite.items)


def test_suite_splits_in_half_by_group_and_answer(suite):
    halves = split_suite(suite, holdout=0.5, disjoint=("group", "gold"), seed=0)
    assert len(halves.train) + len(halves.held) == len(suite)
    assert abs(len(halves.train) - len(halves.held)) <= 0.2 * len(suite)
    assert halves.held_out == "answers"


def test_cities_offer_each_country_about_equally_often_at_each_place():
    suite = read_suite(CONFIGS / "smollm2" / "cities.jsonl")
    places = [sum(item.gold == place for item in suite.items) for place in range(4)]
    assert min(places) > len(suite) / 6


def test_harm_and_harmless_share_no_prompt():
    prompts = [{i.prompt for i in read_suite(CONFIGS / "smollm2" / f"{n}.jsonl").items} for n in ("harm", "harmless")]
    assert not prompts[0] & prompts[1]


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_is_float16_rank_8_on_all_seven_linear_layers(name):
    folder = CONFIGS / name
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "adapter_model.safetensors")
    assert (config["peft_type"], config["r"]) == ("LORA", 8)
    assert len(config["target_modules"]) == 7
    assert len(tensors) == 30 * 7 * 2
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float16"}
    assert not list(folder.glob("*.bin")) + list(folder.glob("*.pt"))


def test_adapters_in_the_repository_are_small():
    held = list(CONFIGS.rglob("adapter_model.safetensors"))
    assert {str(path.parent.relative_to(CONFIGS)) for path in held} == set(ADAPTERS)
    assert sum(path.stat().st_size for path in held) <= LIMIT


def test_an_adapter_that_is_not_trained_here_names_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(refusal_lora, "TRAINED", tmp_path)
    with pytest.raises(SystemExit, match="refusal_lora selective --seed 7"):
        refusal_lora.adapter("selective-7")
    assert refusal_lora.adapter("selective-0") == CONFIGS / "smollm2" / "selective-0"


@pytest.mark.parametrize("name", ["smollm2", "smollm2-frontier"])
def test_config_names_files_that_exist(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    given = json.loads(config.model_dump_json())
    adapters = given["pair"]["adapter"]
    assert all((CONFIGS / one).exists() for one in ([adapters] if isinstance(adapters, str) else adapters))
    assert all((CONFIGS / suite["file"]).exists() for suite in given["suites"])


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    assert load_config(path).suites
