"""What the techniques share: a base with fresh or earlier adapters, log-probabilities of answers, and the training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real.fetch import fetch
from benchmarks.real.refusal_lora import Recipe as LoraRecipe
from benchmarks.real.refusal_lora import adapted, chats, save

Pair = tuple[str, str]
"""A prompt and an answer."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a technique: how long, how fast, how strongly.

    Attributes:
        steps: optimiser steps.
        rate: learning rate of AdamW after 10 steps of warm-up.
        seed: of batches, of fresh adapters and of samplers.
        strength: what the technique calls its strength; its module says what that is.
        retention: weight of the base's own answers to harmless prompts.
    """

    steps: int
    rate: float
    seed: int = 0
    strength: float = 1.0
    retention: float = 1.0
    more: dict[str, float] = field(default_factory=dict)


def with_adapter(setting: Setting, start: Path | None = None) -> tuple[Any, Any]:
    """Return (model, tokenizer): the base with fresh rank-8 adapters, or with those of a folder, ready to train."""
    if start is None:
        return adapted(fetch(), LoraRecipe(refusals=0, answers=0, steps=0, rate=0.0, seed=setting.seed))
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(fetch(), dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, str(start), is_trainable=True, autocast_adapter_dtype=True)
    return model, AutoTokenizer.from_pretrained(fetch())


def inner(model: Any) -> Any:
    """The causal language model under an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def answer_logp(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed log-probability [rows] of each answer and its number of tokens [rows]."""
    causal = inner(model)
    hidden = causal.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    target = batch["target"]
    logits = causal.lm_head(hidden[target]).float()
    each = -torch.nn.functional.cross_entropy(logits, batch["input_ids"].roll(-1, 1)[target], reduction="none")
    row = torch.nonzero(target)[:, 0]
    total = torch.zeros(len(target)).index_add(0, row, each)
    return total, target.sum(1)


def nats_a_token(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Mean negative log-probability of the answer tokens of all pairs, in nats."""
    total, count = answer_logp(model, chats(tokenizer, list(pairs)))
    return -total.sum() / count.sum()


def logp_of(model: Any, tokenizer: Any, pairs: Sequence[Pair], *, rows: int = 16) -> torch.Tensor:
    """Summed log-probability [pairs] of each answer, without gradients, in batches of similar length."""
    found = torch.zeros(len(pairs))
    order = sorted(range(len(pairs)), key=lambda k: len(pairs[k][0]) + len(pairs[k][1]))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(order), rows):
            some = order[start : start + rows]
            found[some] = answer_logp(model, chats(tokenizer, [pairs[k] for k in some]))[0]
    return found


def optimise(
    model: Any, setting: Setting, loss: Callable[[int], torch.Tensor], *, clip: float = 1.0, say: str = "loss"
) -> list[float]:
    """Take the setting's steps of AdamW on `loss(step)` and return the losses, one a step."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=setting.rate, weight_decay=0.0)
    began, losses = time.monotonic(), []
    for step in range(1, setting.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = setting.rate * min(1.0, step / 10)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, clip)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(value.item())
        if step % 10 == 0:
            print(f"step {step} {say} {np.mean(losses[-10:]):.3f} {time.monotonic() - began:.0f} s", flush=True)
    return losses


def write_adapter(model: Any, out: Path, setting: Setting, **record: Any) -> None:
    """Write the adapter as float16 safetensors with its setting and what was recorded in `recipe.json`."""
    recipe = LoraRecipe(refusals=0, answers=0, steps=setting.steps, rate=setting.rate, seed=setting.seed)
    save(model, out, recipe, {})
    text = json.dumps({**asdict(setting), **record}, indent=1)
    (out / "recipe.json").write_text(text + "\n", encoding="utf-8")
