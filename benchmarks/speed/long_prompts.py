"""Processor time of scoring eight items with prompts of 150 and of 1,500 words: ten times the tokens.

OMP_NUM_THREADS=1 python -m benchmarks.speed.long_prompts
"""

from __future__ import annotations

import time

import torch

from benchmarks.device import SIZES, random_pair, suite
from taxlens.analysis.scoring import long_prompts
from taxlens.analysis.scoring.choices import score_suite

SIZES["small"] = SIZES["tiny"] | {
    "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384, "vocab_size": 49152,
    "max_position_embeddings": 4096,
}  # fmt: skip


def seconds(pair, words: int) -> tuple[float, object]:
    """Processor seconds of one scoring, after one to warm up, and the scores."""
    asked = suite(8, words)
    score_suite(pair.base, asked)
    start = time.process_time()
    found = score_suite(pair.base, asked)
    return time.process_time() - start, found.logp


def main() -> None:
    """Measure and print, with fused attention for long rows and without."""
    pair = random_pair("small", "lora", torch.device("cpu"), torch.float32)
    short, _ = seconds(pair, 150)
    fused, scores = seconds(pair, 1500)
    long_prompts.LONG = 1 << 30
    eager, same = seconds(pair, 1500)
    print(
        f"150 words {short:.2f} s; 1,500 words {fused:.2f} s ({fused / short:.1f} x); eager {eager:.2f} s ({eager / short:.1f} x)"
    )
    print(f"largest difference of a score: {abs(scores - same).max():.1e} nats")


if __name__ == "__main__":
    main()
