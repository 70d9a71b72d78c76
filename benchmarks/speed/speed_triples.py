"""Processor time of the leading triples of a weight's change against a full decomposition.

OMP_NUM_THREADS=1 python -m benchmarks.speed.speed_triples

The change has a spectrum that falls as 1 / k, which fine-tuned weights are near: 99 % of its energy lies in about
the first sixty of 1,280 triples.
"""

from __future__ import annotations

import argparse
import time

import torch

from taxlens.analysis.weights.leading_triples import BlockedChange, leading_triples, low_rank_triples


def change_of(out: int, inside: int, *, power: float = 1.0, seed: int = 0) -> BlockedChange:
    """A change [out, in] of full rank whose k-th singular value is k to the minus `power`, on a random base."""
    generator = torch.Generator().manual_seed(seed)
    size = min(out, inside)
    u, v = (torch.linalg.qr(torch.randn(n, size, generator=generator)).Q for n in (out, inside))
    delta = (u * torch.arange(1, size + 1) ** -power) @ v.T
    base = 0.02 * torch.randn(out, inside, generator=generator)
    return BlockedChange(base + delta, base)


def timed(work) -> tuple[float, object]:
    """Processor seconds of a call (best of three, after one to warm up), and what it gave."""
    work()
    best, found = float("inf"), None
    for _ in range(3):
        start = time.process_time()
        found = work()
        best = min(best, time.process_time() - start)
    return best, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=int, default=1280)
    parser.add_argument("--in", dest="inside", type=int, default=3584)
    parser.add_argument("--share", type=float, default=0.99)
    given = parser.parse_args()
    change = change_of(given.out, given.inside)
    whole = torch.cat([block for _, block in change.blocks(torch.float64)])
    start = time.process_time()
    _, s, _ = torch.linalg.svd(whole, full_matrices=False)
    full = time.process_time() - start
    seconds, found = timed(lambda: leading_triples(change, share=given.share))
    check, _ = timed(lambda: low_rank_triples(change, 1e-6))
    uk, sk, vk = (x.double() for x in found)
    k = len(sk)
    rest = whole - (uk * sk) @ vk
    held = torch.cat([block for _, block in change.blocks(torch.float32)])  # as `Difference.rest_of` forms it
    left = torch.addmm(held, found[0] * found[1], found[2], alpha=-1)
    again = ((found[0] * found[1]) @ found[2] + left).double()
    least = int(((s**2).cumsum(0) / (s**2).sum() < given.share).sum()) + 1
    print(f"full decomposition {full:.2f} s; {k} leading triples {seconds:.3f} s; test for low rank {check:.3f} s")
    print(f"{full / (seconds + check):.0f} x less processor time, {full / seconds:.0f} x without the test for low rank")
    print(f"energy held {1 - float(rest.norm() / whole.norm()) ** 2:.5f}; fewest triples that hold it: {least}")
    print(f"largest error of a value {float(((sk - s[:k]) / s[:k]).abs().max()):.1e}")
    print(f"triples and remainder against the change: {float((again - whole).abs().max()):.1e}")


if __name__ == "__main__":
    main()
