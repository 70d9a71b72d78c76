"""The proving ground in one command: `python -m benchmarks.truth [--quick]` writes docs/proving-ground.md.

Pairs and results are cached under .cache/truth by what made them, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.truth.embed import read_model
from benchmarks.truth.findings import (
    layers_beat_uniform,
    one_direction,
    retention_is_cheaper,
    revival,
    shift_is_early,
    top_singular,
)
from benchmarks.truth.ground import remembered
from benchmarks.truth.nulls import null_pair
from benchmarks.truth.parts import weights_of
from benchmarks.truth.proving import FAMILIES, prove
from benchmarks.truth.report import write_report
from taxlens.demo import resolve
from taxlens.demo.world import World


def all_findings(model: PreTrainedModel, world: World) -> dict[str, dict[str, Any]]:
    """What the field found, looked for here; each is computed once."""
    aligned = weights_of(read_model(resolve("demo:refusal")))
    calls = {
        "refusals alone tax harmless prompts more than with retention": lambda: retention_is_cheaper(model, world),
        "base and aligned part in the first answer token": lambda: shift_is_early(model, aligned, world),
        "one direction removes and induces refusal": lambda: one_direction(model, aligned, world),
        "a suppressed capability revives in few steps, an erased one does not": lambda: revival(model, world),
        "an adapter's tax sits in its leading singular triples": lambda: top_singular(model, world),
        "coefficients by layer beat a uniform one": lambda: layers_beat_uniform(model, aligned, world),
    }
    return {name: remembered("finding", call, name) for name, call in calls.items()}


def main() -> None:
    """Make what is missing, score it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two families, one seed, three nulls")
    parser.add_argument("--seeds", type=int, default=3, help="plants of each family")
    parser.add_argument("--nulls", type=int, default=20, help="null pairs")
    parser.add_argument("--steps", type=int, default=120, help="training steps of each planted change")
    parser.add_argument("--items", type=int, default=96, help="items that methods are asked about")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), help="families of plants")
    parser.add_argument("--no-findings", action="store_true", help="leave the field's findings out")
    parser.add_argument("--out", type=Path, default=Path("docs/proving-ground.md"))
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.nulls, args.families = 1, 3, ["P1, as shipped", "P1, no decoy"]
    torch.set_num_threads(1)
    begun, world, model = time.time(), World(), read_model(resolve("demo:base"))
    plants = []
    for seed in range(args.seeds):
        for family in args.families:
            if seed and family == "P1, as shipped":
                continue
            plants.append(prove(model, world, family, seed=seed, steps=args.steps, items=args.items))
            print(f"{time.time() - begun:6.0f} s  {family}, seed {seed}: tax {plants[-1]['tax']:.3f}", flush=True)
    nulls = []
    for seed in range(args.nulls):
        nulls.append(null_pair(model, world, seed=seed, steps=args.steps, items=args.items))
    print(f"{time.time() - begun:6.0f} s  {len(nulls)} null pairs")
    findings = {} if args.quick or args.no_findings else all_findings(model, world)
    write_report(plants, nulls, findings, path=args.out)
    print(f"{time.time() - begun:6.0f} s  wrote {args.out}")


if __name__ == "__main__":
    main()
