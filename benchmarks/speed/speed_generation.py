"""Greedy answers against transformers' `generate`, the same model and prompts in batches of 16, rounds interleaved.

``python -m benchmarks.speed.speed_generation`` (no network: a random Llama of 8 layers of 256).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from taxlens.analysis.answers.generation import _continued, _Ended


class Words:
    """The one thing that the loop asks of a tokenizer: no token ends an answer."""

    eos_token_id = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4096, eos_token_id=None, **sizes)).eval()
    model.generation_config.eos_token_id = None
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 4096, int(rng.integers(20, 40))).tolist() for _ in range(16)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ended = _Ended(Words(), ())
    times: dict[str, list[float]] = {"taxlens": [], "transformers": []}
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        ours = _continued(model, rows, options.tokens, ended, 0.0, None)
        times["taxlens"].append(time.perf_counter() - start)
        start = time.perf_counter()
        with torch.no_grad():
            theirs = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=options.tokens, pad_token_id=0
            )
        times["transformers"].append(time.perf_counter() - start)
    same = sum(a == b for a, b in zip(ours, theirs[:, width:].tolist()))
    for name, found in times.items():
        print(f"{name}: {', '.join(f'{value:.2f}' for value in found[1:])} s")
    ratio = np.median(times["transformers"][1:]) / np.median(times["taxlens"][1:])
    print(f"equal answers: {same} of {len(rows)}; transformers over taxlens: {ratio:.2f}")


if __name__ == "__main__":
    main()
