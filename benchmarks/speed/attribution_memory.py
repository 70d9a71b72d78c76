"""Memory that attribution takes beside a pair's own weights: peak anonymous memory, in units of one model.

OMP_NUM_THREADS=1 python -m benchmarks.speed.attribution_memory

A random Llama of 50 million weights (width 512, 8 layers, vocabulary 49,152) in float32, every weight moved; eight
items, three nodes, by component.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import torch

from benchmarks.device import SIZES, random_pair, suite
from taxlens.analysis.path.attribute import attribute

SIZES["50M"] = {
    "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
    "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Peak(threading.Thread):
    """Watches anonymous memory until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.on = anonymous(), True

    def run(self) -> None:
        """Look every five milliseconds."""
        while self.on:
            self.most = max(self.most, anonymous())
            time.sleep(0.005)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="50M", choices=sorted(SIZES))
    parser.add_argument("--kind", default="full", choices=("full", "lora"))
    parser.add_argument("--levels", nargs="+", default=["component"])
    parser.add_argument("--batch-tokens", type=int, default=1024)
    given = parser.parse_args()
    pair = random_pair(given.size, given.kind, torch.device("cpu"), torch.float32)
    one = sum(p.numel() * p.element_size() for p in pair.base.model.parameters())
    start, began = anonymous(), time.process_time()
    watch = Peak()
    watch.start()
    asked = {"levels": given.levels, "batch_tokens": given.batch_tokens, "metrics": ("nll",), "perplexity": False}
    attribute(pair, suite(8, 12), max_gradients=3, bootstrap=50, **asked)
    watch.on = False
    watch.join()
    more = watch.most - start
    print(f"one model {one / 2**20:.0f} MiB; attribution by {', '.join(given.levels)}: +{more / 2**20:.0f} MiB")
    print(f"{more / one:.2f} of one model; {time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
