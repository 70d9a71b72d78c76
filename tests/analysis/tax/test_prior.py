"""Knowledge or prior: PMI removes a tax that is only a dislike of words."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.tax.surface_form import measure_prior
from taxlens.analysis.tax.tax import measure_tax


@pytest.fixture
def biased_pair(make_model, word_tokenizer):
    """Aligned is base with one word's logit lowered everywhere: a prior, no knowledge, was changed."""
    base = make_model()
    base.lm_head = torch.nn.Linear(32, 48)
    with torch.no_grad():
        base.lm_head.weight.normal_(0, 0.4)
        base.lm_head.bias.zero_()
    aligned = copy.deepcopy(base)
    with torch.no_grad():
        aligned.lm_head.bias[word_tokenizer.convert_tokens_to_ids("w3")] = -6.0

    def loaded(model):
        return SimpleNamespace(model=model.eval(), tokenizer=word_tokenizer, chat_template=word_tokenizer.chat_template)

    return SimpleNamespace(base=loaded(base), aligned=loaded(aligned))


@pytest.fixture
def binary_suite():
    items = (Item(f"i{n}", f"g{n % 10}", f"w{n} w{n % 7}", None, (" w3", " w5"), 0) for n in range(40))
    return Suite("binary", tuple(items))


def test_a_tax_of_the_prior_is_called_calibration(biased_pair, binary_suite):
    tax = measure_tax(biased_pair, binary_suite, templates=["plain"])
    frame = measure_prior(biased_pair, tax).to_frame().set_index(["metric", "part"])["value"]
    assert frame["margin", "tax"] == pytest.approx(6.0, abs=1e-3)
    assert frame["margin", "knowledge"] == pytest.approx(0.0, abs=0.2)
    assert abs(frame["probability", "knowledge"]) < 0.15 * frame["probability", "tax"]
    assert frame["prior_kl", "shift"] > 0.1


def test_a_tax_of_knowledge_survives_pmi(fake_pair, word_suite):
    tax = measure_tax(fake_pair, word_suite, templates=["plain"])
    found = measure_prior(fake_pair, tax)
    frame = found.to_frame().set_index(["metric", "part"])
    parts = frame["value"]
    for metric in ("accuracy", "probability", "margin"):
        assert parts[metric, "knowledge"] + parts[metric, "calibration"] == pytest.approx(parts[metric, "tax"])
        measured = tax.to_frame().set_index("metric").loc[metric]
        assert parts[metric, "tax"] == pytest.approx(measured["tax"])
        assert frame["low"][metric, "tax"] == pytest.approx(measured["low"])
    assert "remain after PMI" in repr(found)


def test_base_against_itself_has_no_shift_of_the_prior(fake_pair, word_suite):
    same = SimpleNamespace(base=fake_pair.base, aligned=fake_pair.base)
    frame = measure_prior(same, measure_tax(same, word_suite, templates=["plain"])).to_frame()
    assert np.abs(frame[["value", "low", "high"]].to_numpy()).max() == 0


def test_premise_changes_what_the_prior_is(fake_pair, word_suite):
    tax = measure_tax(fake_pair, word_suite, templates=["plain"])
    bare, given = (measure_prior(fake_pair, tax, premise=text).to_frame() for text in ("", "w1 w2"))
    assert not bare["value"].equals(given["value"])
