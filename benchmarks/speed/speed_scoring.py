"""Scoring speed against lm-evaluation-harness: the same model, items and batch size, interleaved in one run.

    python -m benchmarks.speed.speed_scoring [--items 500] [--batch 16] [--rounds 3] [--separate] [--model .cache/smollm2/base]

Prints seconds and the ratio by round, and the largest difference of a choice's log-probability. A batch of B rows of
lm-eval is a budget of B times the longest row for taxlens. `--separate` also times taxlens without sharing the prompt
among an item's choices.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from taxlens import suites
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import encode_suite
from taxlens.analysis.scoring.choices import score_suite

SOURCES = ("capitals", "translation", "arithmetic", "common_sense")


def four_choices(count: int) -> Suite:
    """Four-choice items of the embedded suites, taken in turn."""
    columns = [suites.load(name).items for name in SOURCES]
    mixed = [
        Item(f"{name}/{items[n].id}", items[n].group, items[n].prompt, None, items[n].choices, items[n].gold)
        for n in range(max(map(len, columns)))
        for name, items in zip(SOURCES, columns)
        if n < len(items)
    ]
    return Suite("four choices", tuple(mixed[:count]))


def requests(suite: Suite) -> list[Instance]:
    """The suite as lm-eval's requests."""
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=(item.prompt or "", choice), idx=n)
        for item in suite.items
        for n, choice in enumerate(item.choices)
    ]


def timed(work: Any) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--separate", action="store_true")
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2/base"))
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation="eager").eval()
    suite = four_choices(given.items)
    rows = encode_suite(suite, tokenizer)
    budget = given.batch * max(len(row.ids) for row in rows)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=given.batch, device="cpu")
    print(f"{len(suite)} items, {len(rows)} choices, batch {given.batch} rows, {torch.get_num_threads()} threads")
    ways = {"shared": True, "separate": False} if given.separate else {"shared": True}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    worst = 0.0
    for number in range(given.rounds):
        theirs, found = timed(lambda: harness.loglikelihood(requests(suite), disable_tqdm=True))
        reference = np.array([value for value, _ in found])
        line = f"round {number + 1}: lm-eval {theirs:.1f} s"
        for name, share in ways.items():
            ours, scores = timed(
                lambda share=share: score_suite(
                    model, suite, tokenizer=tokenizer, batch_tokens=budget, share_prefix=share
                )
            )
            ratios[name].append(theirs / ours)
            worst = max(worst, float(np.abs(scores.logp[~np.isnan(scores.logp)] - reference).max()))
            line += f", taxlens {name} {ours:.1f} s (x {theirs / ours:.2f})"
        print(line, flush=True)
    for name, values in ratios.items():
        print(f"median ratio, prompts {name}: {statistics.median(values):.2f}")
    print(f"largest difference of a log-probability: {worst:.1e} nats")


if __name__ == "__main__":
    main()
