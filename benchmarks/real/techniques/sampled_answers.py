"""Answers that the base itself samples, kept in the cache: what preference pairs and revisions are made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.real.data import read_json
from benchmarks.real.fetch import CACHE, fetch

TOKENS = 40
"""Most tokens of a sampled answer."""


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    draws: int,
    seed: int,
    temperature: float = 1.0,
    batch: int = 32,
) -> list[list[str]]:
    """Return `draws` sampled answers [prompt, draw] on the chat template, each cut at 40 tokens.

    Args:
        model: a causal language model of transformers, in any dtype.
        tokenizer: its tokenizer.
        prompts: one user message each.
        draws: answers a prompt.
        seed: of the sampler; the answers depend on the batch size too.
        temperature: of the sampler; nucleus .95.
        batch: prompts at once.
    """
    found: list[list[str]] = []
    torch.manual_seed(seed)
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    for start in range(0, len(prompts), batch):
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + batch]]
        texts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages]
        asked = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            ids = model.generate(
                **asked, do_sample=True, temperature=temperature, top_p=0.95, max_new_tokens=TOKENS,
                num_return_sequences=draws, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        said = tokenizer.batch_decode(ids[:, asked.input_ids.shape[1] :], skip_special_tokens=True)
        found += [[text.strip() for text in said[k * draws : (k + 1) * draws]] for k in range(len(texts))]
    tokenizer.padding_side = side
    return found


def base_samples(prompts: Sequence[str], *, draws: int = 2, seed: int = 0) -> dict[str, list[str]]:
    """The base's sampled answers by prompt, from the cache where they are."""
    path = CACHE / f"base_samples_{draws}_{seed}.json"
    known: dict[str, Any] = read_json(path)
    missing = [prompt for prompt in prompts if prompt not in known]
    if missing:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base = fetch()
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
        known.update(zip(missing, sample(model, AutoTokenizer.from_pretrained(base), missing, draws=draws, seed=seed)))
        path.write_text(json.dumps(known, ensure_ascii=False, indent=0), encoding="utf-8")
    return {prompt: known[prompt] for prompt in prompts}
