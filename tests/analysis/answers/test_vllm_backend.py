"""vLLM's adapter against a stand-in that speaks its protocol: scores, answers, and the check that refuses another model."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.answers import generate_answers
from taxlens.analysis.answers.backends.vllm_backend import VllmBackend, check_backend, open_vllm
from taxlens.analysis.scoring.choices import score_rows, score_suite
from taxlens.core.errors import CheckError, TaxlensError


@dataclass
class SamplingParams:
    """The fields of vLLM's sampling parameters that the adapter sets."""

    max_tokens: int = 16
    temperature: float = 1.0
    stop: list = field(default_factory=list)
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    skip_special_tokens: bool = True
    prompt_logprobs: int | None = None


class Engine:
    """`vllm.LLM` as its protocol is, over a small model: token ids in, texts and prompt log-probabilities out."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def generate(self, prompts, parameters, *, use_tqdm):
        assert use_tqdm is False
        return [self._one(one["prompt_token_ids"], wanted) for one, wanted in zip(prompts, parameters, strict=True)]

    @torch.no_grad()
    def _one(self, ids, wanted):
        logp = self.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        known = None
        if wanted.prompt_logprobs is not None:
            known = [None]
            for place in range(1, len(ids)):
                line = logp[place - 1]
                rank = int((line > line[ids[place]]).sum()) + 1
                known.append({ids[place]: SimpleNamespace(logprob=float(line[ids[place]]), rank=rank)})
        said, reason = list(ids), "length"
        for _ in range(wanted.max_tokens):
            token = int(self.model(input_ids=torch.tensor([said])).logits[0, -1].argmax())
            if token == self.tokenizer.eos_token_id:
                reason = "stop"
                break
            said.append(token)
        new = said[len(ids) :]
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        output = SimpleNamespace(text=f" {text}" if text else "", token_ids=new, finish_reason=reason)
        return SimpleNamespace(prompt_token_ids=ids, prompt_logprobs=known, outputs=[output])


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture
def engines(fake_pair):
    return {
        side: VllmBackend(Engine(m.model, m.tokenizer), m.tokenizer)
        for side, m in (("base", fake_pair.base), ("aligned", fake_pair.aligned))
    }


def test_the_engines_scores_are_the_models(fake_pair, word_suite, engines):
    asked = as_asked(fake_pair, fake_pair.base, "plain")
    ours, theirs = (
        engines["base"].score_suite(word_suite, asked),
        score_suite(fake_pair.base, word_suite, prompting=asked),
    )
    assert np.nanmax(np.abs(ours.logp - theirs.logp)) < 1e-4
    assert (ours.gold == theirs.gold).all()
    rows = asked.rows(word_suite)
    assert (engines["base"].score_rows(rows).greedy == score_rows(fake_pair.base, rows).greedy).all()


def test_answers_of_an_engine_are_the_models_and_say_who_made_them(fake_pair, word_suite, engines, tmp_path):
    options = {"template": "plain", "max_new_tokens": 5}
    ours = generate_answers(fake_pair, word_suite, **options)
    theirs = generate_answers(fake_pair, word_suite, backends=engines, folder=tmp_path, **options)
    assert (ours.base, ours.aligned) == (theirs.base, theirs.aligned)
    assert '"engine": "vllm"' in next(tmp_path.glob("*.base.jsonl")).read_text().splitlines()[0]


def test_an_engine_with_the_models_numbers_passes_the_check(fake_pair, word_suite, engines):
    asked = as_asked(fake_pair, fake_pair.base, "plain")
    away, gap = check_backend(engines["base"], fake_pair.base, word_suite, prompting=asked)
    assert away < 1e-4
    assert gap < 1e-4


def test_an_engine_of_another_model_is_refused(fake_pair, word_suite, engines):
    asked = as_asked(fake_pair, fake_pair.base, "plain")
    with pytest.raises(CheckError, match="does not give the model's numbers"):
        check_backend(engines["aligned"], fake_pair.base, word_suite, prompting=asked, tolerance=1e-3)


def test_an_engine_that_gives_no_log_probabilities_is_refused(fake_pair, word_suite, engines, monkeypatch):
    asked = as_asked(fake_pair, fake_pair.base, "plain")
    one = Engine._one
    monkeypatch.setattr(
        Engine,
        "_one",
        lambda self, ids, wanted: SimpleNamespace(**vars(one(self, ids, wanted)) | {"prompt_logprobs": None}),
    )
    with pytest.raises(TaxlensError, match="no log-probability of a prompt's token"):
        engines["base"].score_rows(asked.rows(word_suite))


def test_an_engine_that_is_not_installed_is_named(fake_pair, word_suite, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    asked = as_asked(fake_pair, fake_pair.base, "plain")
    with pytest.raises(TaxlensError, match=r"taxlens\[vllm\]"):
        open_vllm(fake_pair.base, word_suite, prompting=asked)
