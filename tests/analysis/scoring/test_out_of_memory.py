"""Where memory runs out the batch is halved, the numbers stay, and the log says so."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from taxlens.activations.items.out_of_memory import check_memory, in_halves, memory_ran_out, until_it_fits
from taxlens.activations.models.prompts import Prompting
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.scoring import shared_prompt
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.weights.gradients import weight_slopes
from taxlens.core.errors import TaxlensError


def short_above(model, rows: int):
    """A hook under which a pass of more than so many rows runs out of memory."""

    def refuse(_module, args, kwargs):
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return model.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_the_same_where_batches_had_to_be_halved(fake_pair, word_suite, share, caplog):
    model, asked = fake_pair.base.model, {"tokenizer": fake_pair.base.tokenizer, "share_prefix": share}
    wanted = score_suite(model, word_suite, **asked).logp
    hook = short_above(model, 3)
    try:
        with caplog.at_level(logging.WARNING):
            found = score_suite(model, word_suite, **asked).logp
    finally:
        hook.remove()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert "memory ran out" in caplog.text


def test_memory_that_runs_out_while_sharing_is_tried_is_told_and_the_scores_stay(
    fake_pair, word_suite, monkeypatch, caplog
):
    model, tokenizer = fake_pair.base.model, fake_pair.base.tokenizer
    wanted = score_suite(model, word_suite, tokenizer=tokenizer).logp

    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(shared_prompt, "_agrees", refuse)
    with caplog.at_level(logging.WARNING):
        found = score_suite(model, word_suite, tokenizer=tokenizer).logp
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert "side by side" in caplog.text
    caplog.clear()
    monkeypatch.setattr(shared_prompt, "_agrees", lambda *_: (_ for _ in ()).throw(ValueError("no such mask")))
    score_suite(model, word_suite, tokenizer=tokenizer)
    assert not caplog.text


def test_memory_that_runs_out_is_not_told_as_a_damaged_file():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(TaxlensError, match="memory runs out: loading x"):
        check_memory(error, what="loading x")
    check_memory(ValueError("bad weights"), what="loading x")


def test_effects_are_the_same_where_batches_had_to_be_halved(refusal_pair, refusal_suites, caplog):
    few = refusal_suites[0].subset(range(8))
    asked = {"levels": ("component",), "metrics": ("nll",), "max_gradients": 3, "perplexity": False, "bootstrap": 20}
    wanted = attribute(refusal_pair, few, **asked).suites["facts"].values["nll", "component"]
    passes = []

    def refuse(_module, _args, kwargs):
        if torch.is_grad_enabled():
            passes.append(len(kwargs["input_ids"]))
            if passes[-1] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = refusal_pair.base.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        found = attribute(refusal_pair, few, **asked).suites["facts"].values["nll", "component"]
    finally:
        hook.remove()
    assert max(passes) > 3
    assert passes[-1] <= 3
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert "memory ran out" in caplog.text


def test_one_member_that_does_not_fit_is_said_and_other_errors_are_not_swallowed():
    def never(_batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TaxlensError, match="single sequence"):
        in_halves(never, [1, 2, 3], what="scoring")
    with pytest.raises(TaxlensError, match="single sequence"):
        until_it_fits(lambda: never(0), lambda: False, what="attribute")
    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(lambda _: (_ for _ in ()).throw(RuntimeError("shapes do not fit")), [1], what="scoring")
    assert not memory_ran_out(TaxlensError("memory alloc"))
    assert in_halves(sum, [1, 2, 3], what="adding") == [6]


def test_answers_are_the_same_where_batches_had_to_be_halved(fake_pair, word_suite, caplog):
    model, prompts = fake_pair.base.model, list(word_suite.items[:7])
    asked = {"template": "plain", "max_new_tokens": 4}
    wanted = generate(model, fake_pair.base.tokenizer, prompts, **asked)
    hook = short_above(model, 2)
    try:
        assert generate(model, fake_pair.base.tokenizer, prompts, **asked) == wanted
    finally:
        hook.remove()
    assert "generation goes on with batches of" in caplog.text


def test_gradients_are_the_same_where_batches_had_to_be_halved(fake_pair, word_suite, caplog):
    model, few = fake_pair.base.model, word_suite.subset(range(6))
    modules = [name for name, _ in model.named_modules() if name.endswith("down_proj")]
    how = Prompting(fake_pair.base.tokenizer)
    wanted, value = weight_slopes(model, few, how, modules=modules)
    hook = short_above(model, 2 * len(few.items[0].choices))
    try:
        found, again = weight_slopes(model, few, how, modules=modules)
    finally:
        hook.remove()
    assert again == pytest.approx(value)
    for key, slope in wanted.items():
        torch.testing.assert_close(found[key], slope, atol=1e-6, rtol=1e-4)
    assert "gradient of words goes on" in caplog.text
    hook = short_above(model, 1)  # not even one item
    try:
        with pytest.raises(TaxlensError, match="single sequence"):
            weight_slopes(model, few, how, modules=modules)
    finally:
        hook.remove()
