"""The embedded models: small, masters of their world, and planted as their truth file says."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.truth.plants.parts import component_of, players, subtract, weights_of
from benchmarks.truth.plants.plants import Plant, accept
from benchmarks.truth.techniques.train_base import mastery
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import TASKS, World
from taxlens.demo import model_names, resolve, truth
from taxlens.demo.catalogue import DATA


@pytest.fixture(scope="module")
def base():
    return read_model(resolve("demo:base"))


@pytest.fixture(scope="module")
def plant(base):
    """The planted pair, its change split into harm, benefit and decoy by the truth file's components."""
    weights, found = weights_of(base), truth("demo:planted")
    change = subtract(weights_of(read_model(resolve("demo:planted"))), weights)
    changes = {
        part: {name: value for name, value in change.items() if component_of(name) in found["components"][part]}
        for part in ("harm", "benefit", "decoy")
    }
    return Plant(weights, changes, found["components"], taxed="facts")


def test_the_base_has_at_most_a_million_parameters_in_ten_players(base):
    assert sum(value.numel() for value in base.parameters()) <= 1_000_000
    assert len(players(base)) == 10


def test_the_base_masters_every_task_on_questions_it_never_met(base):
    shares = mastery(base, World())
    assert set(shares) == set(TASKS)
    assert min(shares.values()) >= 0.98, shares


def test_the_embedded_data_are_small():
    sizes = {path.parent.name: path.stat().st_size for path in DATA.glob("models/*/model.safetensors")}
    assert sizes["base"] + sizes["planted"] <= 6e6
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 12e6


@pytest.mark.parametrize("name", model_names())
def test_every_model_loads_in_float32_with_finite_weights(name):
    model = AutoModelForCausalLM.from_pretrained(resolve(name))
    assert model.dtype == torch.float32
    assert all(torch.isfinite(value).all() for value in model.parameters())


@pytest.mark.parametrize("name", model_names())
def test_every_model_brings_the_same_tokenizer_and_chat_template(name):
    tokenizer = AutoTokenizer.from_pretrained(resolve(name))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "fact s1 r2 ->"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<s> <user> fact s1 r2 -> <end> <assistant>"
    assert tokenizer("fact s1 r2 ->")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokenizer(asked, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", [name for name in model_names() if name != "demo:base"])
def test_norms_of_every_aligned_model_are_the_base_s(base, name):
    change = subtract(weights_of(read_model(resolve(name))), weights_of(base))
    assert all(value.abs().max() == 0 for part, value in change.items() if "norm" in part)


def test_the_change_of_the_planted_model_lies_where_the_truth_file_says(base, plant):
    found = truth("demo:planted")
    named = {part for parts in found["components"].values() for part in parts}
    change = subtract(weights_of(read_model(resolve("demo:planted"))), weights_of(base))
    moved = {component_of(name) for name, value in change.items() if value.abs().max() > 0}
    assert moved == named
    assert not set(found["components"]["harm"]) & set(found["components"]["decoy"])


def test_the_plant_passes_its_two_acceptance_tests(base, plant):
    result = accept(base, World(), plant)
    assert result.accepted, result
    assert 0.2 <= result.tax <= 0.6
    assert result.ratio > 1
    assert max(abs(tax) for tax in result.others.values()) <= 0.05
    assert result.benefit >= 0.6


def test_the_acceptance_test_refuses_a_decoy_that_does_harm(base, plant):
    swapped = Plant(
        plant.base,
        {**plant.changes, "harm": plant.changes["decoy"], "decoy": plant.changes["harm"]},
        plant.components,
        taxed="facts",
    )
    assert not accept(base, World(), swapped).accepted
