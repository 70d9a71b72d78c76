"""The proving ground in one command: `python -m benchmarks.truth [--quick]` writes docs/proving-ground.md.

Pairs and results are cached under .cache/truth by what made them, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.truth.embed import read_model
from benchmarks.truth.nulls import null_pair
from benchmarks.truth.proving import FAMILIES, prove
from benchmarks.truth.report import write_report
from taxlens.demo import resolve
from taxlens.demo.world import World


def main() -> None:
    """Make what is missing, score it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two families, one seed, three nulls")
    parser.add_argument("--seeds", type=int, default=3, help="plants of each family")
    parser.add_argument("--nulls", type=int, default=20, help="null pairs")
    parser.add_argument("--steps", type=int, default=120, help="training steps of each planted change")
    parser.add_argument("--items", type=int, default=96, help="items that methods are asked about")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), help="families of plants")
    parser.add_argument("--out", type=Path, default=Path("docs/proving-ground.md"))
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.nulls, args.families = 1, 3, ["P1, larger decoy", "P1, no decoy"]
    torch.set_num_threads(1)
    begun, world, model = time.time(), World(), read_model(resolve("demo:base"))
    plants = []
    for seed in range(args.seeds):
        for family in args.families:
            plants.append(prove(model, world, family, seed=seed, steps=args.steps, items=args.items))
            print(f"{time.time() - begun:6.0f} s  {family}, seed {seed}: tax {plants[-1]['tax']:.3f}", flush=True)
    nulls = []
    for seed in range(args.nulls):
        nulls.append(null_pair(model, world, seed=seed, steps=args.steps, items=args.items))
    print(f"{time.time() - begun:6.0f} s  {len(nulls)} null pairs")
    write_report(plants, nulls, path=args.out)
    print(f"{time.time() - begun:6.0f} s  wrote {args.out}")


if __name__ == "__main__":
    main()
