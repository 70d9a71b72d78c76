"""Greedy answers against transformers' `generate` (batches of 16) and lm-eval's `generate_until`, in one process.

``python -m benchmarks.speed.speed_generation [--model FOLDER] [--prompts 32] [--tokens 32] [--rounds 3]``

Without a model a random Llama of 8 layers of 256. Rounds are interleaved, and times are of the processor (all threads):
what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.speed.words import word_tokenizer
from taxlens import suites
from taxlens.analysis.answers.generation import generate

BATCH = 16


def loaded(folder: str) -> tuple[Any, Any, list[str]]:
    """The model, its tokenizer and what is asked."""
    if folder:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        prompts = [
            item.prompt or "" for name in ("suite:lookalikes", "suite:capitals") for item in suites.load(name).items
        ]
        return model, AutoTokenizer.from_pretrained(folder), prompts
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    config = LlamaConfig(vocab_size=4096, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes)
    rng = np.random.default_rng(0)
    prompts = [" ".join(f"w{n}" for n in rng.integers(3, 4090, int(rng.integers(20, 40)))) for _ in range(512)]
    return LlamaForCausalLM(config).eval(), word_tokenizer(4096), prompts


def of_transformers(model: Any, tokenizer: Any, prompts: list[str], tokens: int) -> list[str]:
    """The answers by transformers' own loop, prompts of like length in batches of 16."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    said = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        asked = tokenizer([prompts[n] for n in part], return_tensors="pt", padding=True)
        with torch.no_grad():
            ids = model.generate(
                input_ids=asked.input_ids, attention_mask=asked.attention_mask, do_sample=False, max_new_tokens=tokens,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        for n, text in zip(part, tokenizer.batch_decode(ids[:, asked.input_ids.shape[1] :], skip_special_tokens=True)):
            said[n] = text.strip()
    return said


def of_lm_eval(model: Any, tokenizer: Any) -> Callable[[list[str], int], list[str]]:
    """lm-eval's `generate_until` on the same model."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, device="cpu")

    def answers(prompts: list[str], tokens: int) -> list[str]:
        options = {"until": [], "max_gen_toks": tokens, "do_sample": False}
        asked = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(options)), idx=n)
            for n, prompt in enumerate(prompts)
        ]
        return [text.strip() for text in lm.generate_until(asked, disable_tqdm=True)]

    return answers


def main() -> None:
    """Print the processor seconds of each, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="folder of a checkpoint")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer, prompts = loaded(options.model)
    prompts, tokens = prompts[: options.prompts], options.tokens
    theirs = of_lm_eval(model, tokenizer)
    longest = max(len(tokenizer(prompt).input_ids) for prompt in prompts) + tokens
    runs: dict[str, Callable[[], list[str]]] = {
        "taxlens": lambda: generate(
            model, tokenizer, prompts, template="plain", max_new_tokens=tokens, batch_tokens=BATCH * longest
        ),
        "transformers": lambda: of_transformers(model, tokenizer, prompts, tokens),
        "lm-eval": lambda: theirs(prompts, tokens),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    said: dict[str, list[str]] = {}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            said[name] = run()
            if number:
                times[name].append(time.process_time() - start)
    print(f"{Path(options.model).name or 'random Llama'}: {len(prompts)} prompts, {tokens} tokens, batches of {BATCH}")
    for name, found in times.items():
        same = sum(one == two for one, two in zip(said[name], said["taxlens"]))
        ratio = np.median(found) / np.median(times["taxlens"])
        shown = ", ".join(f"{value:.1f}" for value in found)
        print(f"{name}: {shown} s of processor, {ratio:.2f} x taxlens, {same} of {len(prompts)} answers as taxlens's")


if __name__ == "__main__":
    main()
