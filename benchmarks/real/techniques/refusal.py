"""Refusal training in all weights: refusals of harmful prompts and the base's own answers to harmless ones.

By adapter it is `benchmarks.real.refusal_lora`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.real.answers import own_answers
from benchmarks.real.data import REFUSALS, prompts
from benchmarks.real.fetch import fetch
from benchmarks.real.refusal_lora import endless
from benchmarks.real.techniques.tuning import Pair, Setting, nats_a_token, optimise
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.core.errors import UsageError

ANSWER = 34
"""Tokens of an own answer that are generated: training cuts them at 32."""


def refusal_batches(tokenizer: object, seed: int, *, refusals: int = 4, answers: int = 4) -> Iterator[list[Pair]]:
    """Lists of (prompt, answer) for ever: so many refusals of harmful prompts and own answers to harmless ones."""
    rng, parts = np.random.default_rng(seed), prompts()
    harmful, refusal = endless(list(parts.harmful_train), rng), endless(list(REFUSALS), rng)
    kept = [
        (p, a) for p, a in own_answers(parts.harmless_train, max_new_tokens=ANSWER).items() if a and not is_refusal(a)
    ]
    harmless = endless(kept, rng)
    while True:
        pairs = [(next(harmful), next(refusal)) for _ in range(refusals)]
        yield pairs + [next(harmless) for _ in range(answers)]


def refusal_full(setting: Setting, out: Path, *, start: Path | None = None) -> None:
    """Train all weights, kept in float32; a whole checkpoint is written to `out`, in bfloat16.

    Raises:
        UsageError: a start is given: all weights are trained from the base.
    """
    if start is not None:
        raise UsageError("all weights are trained from the base: give no start.")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(setting.seed)
    tokenizer = AutoTokenizer.from_pretrained(fetch())
    model = AutoModelForCausalLM.from_pretrained(fetch(), dtype=torch.float32)
    stream = refusal_batches(tokenizer, setting.seed)
    optimise(model, setting, lambda step: nats_a_token(model, tokenizer, next(stream)))
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
