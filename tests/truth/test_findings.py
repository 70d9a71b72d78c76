"""What the field found, found again on the embedded base (each trains for seconds)."""

from __future__ import annotations

import pytest

from benchmarks.truth.page import findings
from benchmarks.truth.plants.parts import weights_of
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from taxlens.demo import resolve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return read_model(resolve("demo:base"))


@pytest.fixture(scope="module")
def refusal():
    return weights_of(read_model(resolve("demo:refusal")))


def test_refusals_alone_tax_harmless_prompts_more_than_with_retention(model):
    assert findings.retention_is_cheaper(model, World())["holds"]


def test_base_and_aligned_part_in_the_first_answer_token(model, refusal):
    assert findings.shift_is_early(model, refusal, World())["holds"]


def test_a_model_does_not_part_from_itself(model):
    assert not findings.shift_is_early(model, weights_of(model), World())["holds"]


def test_one_direction_removes_and_induces_refusal(model, refusal):
    assert findings.one_direction(model, refusal, World())["holds"]


def test_a_suppressed_capability_revives_in_few_steps_and_an_erased_one_does_not(model):
    assert findings.revival(model, World())["holds"]


def test_an_adapters_tax_sits_in_its_leading_singular_triples(model):
    assert findings.top_singular(model, World())["holds"]


def test_coefficients_by_layer_are_no_worse_than_a_uniform_one(model, refusal):
    assert findings.layers_beat_uniform(model, refusal, World())["holds"]
