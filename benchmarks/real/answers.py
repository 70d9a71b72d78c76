"""The base's own greedy answers, cached, and answers of any adapter on it.

The answers to harmless prompts are what the selective recipe retains, and the
openings of answers are choices of the suites.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.real.data import read_json
from benchmarks.real.fetch import CACHE, fetch
from taxlens.analysis.answers.generation import generate

ANSWER_TOKENS = 64


def load(adapter: Path | None = None) -> tuple[Any, Any]:
    """The base in float32, with an adapter merged in if one is named, and its tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = fetch()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(base)


def own_answers(
    prompts: Sequence[str], *, max_new_tokens: int = ANSWER_TOKENS, loaded: tuple[Any, Any] | None = None
) -> dict[str, str]:
    """The base's greedy answers on the chat template by prompt, from the cache where they are."""
    cached = CACHE / f"base_answers_{max_new_tokens}.json"
    known = read_json(cached)
    missing = [prompt for prompt in prompts if prompt not in known]
    if missing:
        model, tokenizer = loaded or load()
        known.update(zip(missing, generate(model, tokenizer, missing, max_new_tokens=max_new_tokens)))
        cached.write_text(json.dumps(known, ensure_ascii=False, indent=0), encoding="utf-8")
    return {prompt: known[prompt] for prompt in prompts}
