"""Answers in files: a killed generation goes on, another model's answers are not taken, answers are suites again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from taxlens.activations.capture.row_plan import make_plan
from taxlens.activations.items.items import Item, Suite, read_suite, write_suite
from taxlens.analysis.answers import generation
from taxlens.analysis.answers.answers import Answers, answers_file, generate_answers
from taxlens.analysis.answers.generation import generate, generated
from taxlens.analysis.answers.versatility import measure_versatility
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.errors import ItemError


@pytest.fixture
def suite():
    items = [Item(str(n), str(n % 3), prompt=f"w{n % 7 + 1} w{n % 5 + 2}") for n in range(20)]
    return Suite("asked", tuple(items))


class Killed(BaseException):
    """What ends a process."""


def killed_after(monkeypatch, batches):
    """Let generation die after so many batches; the function that counts how many prompts were run."""
    run, original = [], generation._continued

    def counting(model, rows, *rest):
        if len(run) >= batches:
            raise Killed
        run.append(len(rows))
        return original(model, rows, *rest)

    monkeypatch.setattr(generation, "_continued", counting)
    return run


OPTIONS = {"template": "plain", "max_new_tokens": 4, "batch_tokens": 24}


def test_a_killed_generation_goes_on_at_the_next_prompt(fake_pair, suite, tmp_path, monkeypatch):
    whole = generate_answers(fake_pair, suite, **OPTIONS)
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(Killed):
            generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    kept = answers_file(tmp_path, "asked", "plain", "base").read_text().splitlines()
    done = sum('"item"' in line for line in kept)
    assert 0 < done < len(suite)
    with monkeypatch.context() as patched:
        run = killed_after(patched, 10**6)
        again = generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    assert sum(run) == 2 * len(suite) - done + 2  # and one before each clock starts
    assert (again.base, again.aligned) == (whole.base, whole.aligned)
    assert again.tokens[0].tolist() == whole.tokens[0].tolist()
    with monkeypatch.context() as patched:
        run = killed_after(patched, 10**6)
        third = generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    assert run == []
    assert third.seconds == again.seconds


def test_a_line_that_was_half_written_is_made_again(fake_pair, suite, tmp_path):
    whole = generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    file = answers_file(tmp_path, "asked", "plain", "aligned")
    data = file.read_bytes()
    file.write_bytes(data[: 2 * len(data) // 3])
    assert generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS).aligned == whole.aligned
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["item"] for line in lines if "item" in line) == sorted(item.id for item in suite.items)


@pytest.mark.parametrize("changed", [{"max_new_tokens": 3}, {"seed": 5}, {"stop": ("w9",)}, {"temperature": 0.5}])
def test_answers_made_otherwise_are_not_taken(fake_pair, suite, tmp_path, changed, monkeypatch):
    generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    run = killed_after(monkeypatch, 10**6)
    found = generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS | changed)
    assert sum(run) == 2 * len(suite) + 2
    assert found.base == generate_answers(fake_pair, suite, **OPTIONS | changed).base


def test_answers_of_other_items_are_not_taken(fake_pair, suite, tmp_path, monkeypatch):
    generate_answers(fake_pair, suite, folder=tmp_path, **OPTIONS)
    run = killed_after(monkeypatch, 10**6)
    generate_answers(fake_pair, suite.subset(range(19)), folder=tmp_path, **OPTIONS)
    assert sum(run) == 2 * 19 + 2


def test_a_sample_depends_on_seed_and_prompt_alone(fake_pair, word_tokenizer):
    model = fake_pair.base.model
    prompts = ["w1 w2", "w3 w4 w5", "w6"]
    options = {"template": "plain", "max_new_tokens": 6, "temperature": 1.0}
    together = generate(model, word_tokenizer, prompts, seed=3, **options)
    assert together == [generate(model, word_tokenizer, [prompt], seed=3, **options)[0] for prompt in prompts]
    assert together != generate(model, word_tokenizer, prompts, seed=4, **options)
    draws = [
        one.text
        for batch in generated(model, word_tokenizer, ["w1 w2"] * 8, draws=range(8), **options)
        for _, one in batch
    ]
    assert len(set(draws)) > 1


def test_samples_follow_the_models_probabilities(fake_pair, word_tokenizer):
    import torch

    model = fake_pair.base.model
    options = {"template": "plain", "max_new_tokens": 1, "temperature": 1.0, "draws": range(4000), "batch_tokens": 8000}
    ids = word_tokenizer("w1 w2", return_tensors="pt").input_ids
    with torch.no_grad():
        chances = model(input_ids=ids).logits[0, -1].double().softmax(-1)
    names = {word_tokenizer.decode([n], skip_special_tokens=True).strip(): float(p) for n, p in enumerate(chances)}
    said = [
        one.text.strip() for batch in generated(model, word_tokenizer, ["w1 w2"] * 4000, **options) for _, one in batch
    ]
    for word in sorted(names, key=lambda name: -names[name])[:4]:
        share = said.count(word) / 4000
        assert abs(share - names[word]) < 4 * np.sqrt(names[word] / 4000) + 1e-3, word


def test_versatility_goes_on_where_it_was(fake_pair, suite, tmp_path, monkeypatch):
    options = {"template": "plain", "samples": 3, "max_new_tokens": 3, "batch_tokens": 40, "bootstrap": 100}
    whole = measure_versatility(fake_pair, suite, **options).frame
    with monkeypatch.context() as patched:
        killed_after(patched, 5)
        with pytest.raises(Killed):
            measure_versatility(fake_pair, suite, folder=tmp_path, **options)
    again = measure_versatility(fake_pair, suite, folder=tmp_path, **options).frame
    assert again.equals(whole)
    assert answers_file(tmp_path, "asked", "plain", "base", samples=True).is_file()


def _said(base, aligned, suite):
    zeros = np.zeros(len(suite))
    return Answers(suite, "plain", tuple(base), tuple(aligned), (zeros, zeros), (0.0, 0.0))


def test_answers_are_suites_with_the_other_models_answer_beside(suite, tmp_path):
    few = suite.subset(range(4))
    said = _said([" w5 w6", " w7", "", " w8"], [" w6", " w7", " w1", " w9"], few)
    base, aligned = said.as_suite("base"), said.as_suite("aligned")
    assert (base.name, [item.id for item in base.items], base.left_out) == ("asked.base_answers", ["0", "3"], 2)
    assert [item.choices[item.gold] for item in base.items] == [" w5 w6", " w8"]
    assert [item.choices[item.gold] for item in aligned.items] == [" w6", " w9"]
    assert read_suite(write_suite(base, tmp_path / "b.jsonl")).items == base.items
    with pytest.raises(ItemError, match="the same answers"):
        _said([" w5"] * 4, [" w5"] * 4, few).as_suite("base")


@pytest.fixture(scope="module")
def real_pair(make_model, word_tokenizer):
    """Two random models as a loaded pair."""
    import torch

    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import make_pair

    models = [make_model("llama", 0), make_model("llama", 0)]
    with torch.no_grad():
        for weight in models[1].parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * weight.std()
    loaded = [
        LoadedModel(m, word_tokenizer, f"m{n}", f"{n}" * 64, None, torch.device("cpu"), "float32")
        for n, m in enumerate(models)
    ]
    return make_pair(*loaded)


def test_what_base_said_is_likelier_under_base_and_is_captured_and_attributed(real_pair, suite):
    fake_pair = real_pair
    said = generate_answers(fake_pair, suite, template="plain", max_new_tokens=4)
    own = said.as_suite("base")
    base, aligned = (score_suite(model, own).metrics(["nll"])["nll"] for model in (fake_pair.base, fake_pair.aligned))
    assert aligned.mean() > base.mean()
    found = attribute(fake_pair, own, metrics=("nll",), levels=("component",), bootstrap=100)
    closure = found.closure_frame().iloc[0]
    assert closure["tax"] == pytest.approx(aligned.mean() - base.mean(), abs=1e-4)
    assert abs(closure["residual"]) < 0.05 * abs(closure["tax"]) + 1e-3
    tokens = found.tokens_frame()
    assert len(tokens)
    assert {"gold", "foil"} <= set(make_plan(fake_pair, [own], positions="answer").frame["kind"])
