"""`taxlens check MODEL`: what works on a checkpoint of one's own."""

import json

import pytest
import torch

import taxlens
from taxlens.cli.app import run_app
from taxlens.core.errors import ModelLoadError


@pytest.fixture(scope="module")
def checked():
    return taxlens.check_model("demo:base")


def test_every_step_is_tried_and_works_on_an_embedded_model(checked):
    frame = checked.to_frame().set_index("step")
    steps = (
        "load", "tax, plain", "tax, chat", "capture", "probe", "similarity", "lens", "attribute", "swap", "restoration",
        "diagnose", "frontier",
    )  # fmt: skip
    assert tuple(frame.index) == steps
    assert checked.works, frame[~frame.works].found.to_dict()
    assert "closed with" in frame.found["attribute"]
    assert "self-check passed" in frame.found["capture"]
    assert frame.found["diagnose"] == "3 rows on 16 items", "two layers and the whole: it did not end for want of a tax"
    assert frame.found["frontier"] == "2 plans measured on 16 items"
    assert "every stage works" in repr(checked)


def test_a_step_that_fails_is_told_and_the_others_go_on(monkeypatch):
    from taxlens.activations.hooks import selfcheck
    from taxlens.activations.hooks.selfcheck import Check

    def broken(loaded, rows, asked, read, model):
        return [Check(model, "resid_post", "padding", 1.0, 0.0, False)]

    monkeypatch.setattr(selfcheck, "_padding", broken)
    found = taxlens.check_model("demo:base")
    frame = found.to_frame().set_index("step")
    assert not found.works
    assert not frame.works["capture"]
    assert "activations are not what the model computes" in frame.found["capture"]
    assert frame.works["attribute"]
    assert not frame.works["probe"], "there is no store to read"


def test_the_command_prints_what_works_and_its_exit_code_says_so(capsys):
    assert run_app(["check", "demo:base", "--quiet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["works"]
    assert any(step["step"] == "attribute" for step in told["steps"])


def test_a_model_that_cannot_be_loaded_is_refused_as_everywhere(tmp_path):
    with pytest.raises(ModelLoadError, match="no model here"):
        taxlens.check_model(tmp_path)


def test_the_checkpoint_itself_is_left_as_it_was():
    pair = taxlens.load_pair("demo:base", "demo:planted")
    model = pair.base.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    taxlens.check_model(model, tokenizer=pair.base.tokenizer)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
