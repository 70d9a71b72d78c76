"""The proving ground in one command: `python -m benchmarks.truth [--quick]` writes docs/proving-ground.md.

Pairs and results are cached under .cache/truth by what made them, so that a run that was stopped goes on, and so
that pieces (`--pieces plants --families ... --no-page`) may run side by side. `--ready` writes the page from what
is cached, and says how much that is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.truth.ground import FINDINGS, NotReadyError, only_ready, remembered
from benchmarks.truth.page.findings import (
    layers_beat_uniform,
    one_direction,
    retention_is_cheaper,
    revival,
    shift_is_early,
    top_singular,
)
from benchmarks.truth.page.report import write_report
from benchmarks.truth.plants.nulls import null_pair, null_plan
from benchmarks.truth.plants.parts import weights_of
from benchmarks.truth.plants.state_plants import BUILDERS, judged_state
from benchmarks.truth.proving import FAMILIES, plant_of, prove
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from benchmarks.truth.worlds.worlds import WORLDS, base_folder
from taxlens.demo import resolve

PIECES = ("plants", "nulls", "plans", "worlds", "states", "findings")
SIMPLE = ("P1, larger decoy", "P1, equal decoy", "P1, no decoy")
IN_WORLDS = {"gpt2": ("P1, larger decoy", "P5 spread"), "deep": ("P1, larger decoy", "P5 spread", "P6 rank one")}
"""Families that are planted in further bases too (P6 is a change of matrices alone: not where there are biases)."""


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
    found = had(
        (name, lambda n=name, c=call: remembered("finding", c, n, code=FINDINGS)) for name, call in calls.items()
    )
    return dict(found)


def had(calls: Iterable[tuple[str, Callable[[], Any]]], *, began: float | None = None) -> list[tuple[str, Any]]:
    """Name and value of every call; with `--ready`, of those that are cached."""
    found = []
    for name, call in calls:
        try:
            found.append((name, call()))
        except NotReadyError:
            continue
        if began is not None:
            print(f"{time.time() - began:6.0f} s  {name}", flush=True)
    return found


def in_worlds(args: argparse.Namespace, began: float) -> list[dict[str, Any]]:
    """Plants on the further bases."""
    plants = []
    for name in args.worlds:
        ready = had([(name, lambda n=name: base_folder(n))])
        if not ready:
            continue
        folder = ready[0][1]
        model = read_model(folder)
        calls = (
            (f"{name}, {family}, seed {seed}", lambda n=name, f=family, s=seed, m=model, d=folder: prove(
                m, World(), f, seed=s, steps=WORLDS[n].plant_steps, items=args.items, folder=d))
            for seed in range(args.first_seed, min(args.seeds, args.world_seeds)) for family in IN_WORLDS[name]
        )  # fmt: skip
        plants += [plant | {"world": name} for _, plant in had(calls, began=began)]
    return plants


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two families, one seed, three nulls, no findings")
    parser.add_argument("--seeds", type=int, default=10, help="plants of each family")
    parser.add_argument("--nulls", type=int, default=110, help="null pairs")
    parser.add_argument("--world-seeds", type=int, default=4, help="plants on each further base")
    parser.add_argument("--state-seeds", type=int, default=10, help="plants of each state")
    parser.add_argument("--first-seed", type=int, default=0, help="where the seeds of plants and nulls begin")
    parser.add_argument("--steps", type=int, default=180, help="training steps of each planted change")
    parser.add_argument("--items", type=int, default=96, help="items that methods are asked about")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--pieces", nargs="*", default=list(PIECES), choices=PIECES, help="what to run")
    parser.add_argument("--no-page", action="store_true", help="fill the cache only (a piece of a longer run)")
    parser.add_argument("--ready", action="store_true", help="train nothing: the page of what is cached")
    parser.add_argument("--out", type=Path, default=Path("docs/proving-ground.md"))
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.nulls, args.families = 1, 3, ["P1, as shipped", "P1, no decoy"]
        args.pieces = ["plants", "nulls"]
    return args


def main() -> None:
    """Make what is missing, score it, and write the page."""
    args = parsed()
    torch.set_num_threads(1)
    only_ready(args.ready)
    began, world, model = time.time(), World(), read_model(resolve("demo:base"))
    seeds, settings = range(args.first_seed, args.seeds), {"steps": args.steps, "items": args.items}
    pairs = [(s, f) for s in seeds for f in args.families if not (s and f == "P1, as shipped")]
    found: dict[str, Any] = {piece: [] for piece in PIECES}
    if "plants" in args.pieces:
        found["plants"] = had((
            (f"{family}, seed {seed}", lambda f=family, s=seed: prove(model, world, f, seed=s, **settings))
            for seed, family in pairs
        ), began=began)  # fmt: skip
    if "nulls" in args.pieces:
        nulls = range(args.first_seed, args.nulls)
        found["nulls"] = had(
            (f"null {seed}", lambda s=seed: null_pair(model, world, seed=s, **settings)) for seed in nulls
        )
    if "plans" in args.pieces:
        found["plans"] = had((
            (f"plan, seed {seed}", lambda s=seed: remembered("null-plan", lambda: null_plan(
                model, world, plant_of(model, world, SIMPLE[0], seed=s, steps=args.steps)), s, args.steps, "with random plans"))
            for seed in seeds
        ), began=began)  # fmt: skip
    if "worlds" in args.pieces:
        found["worlds"] = [("", plant) for plant in in_worlds(args, began)]
    if "states" in args.pieces:
        found["states"] = had((
            (f"{state}, seed {seed}", lambda n=state, s=seed: judged_state(model, world, n, seed=s))
            for seed in range(args.first_seed, min(args.seeds, args.state_seeds)) for state in BUILDERS
        ), began=began)  # fmt: skip
    findings = all_findings(model, world) if "findings" in args.pieces else {}
    if not args.no_page:
        command = " ".join(["python -m benchmarks.truth", *sys.argv[1:]])
        parts = {piece: [value for _, value in found[piece]] for piece in PIECES[:-1]}
        write_report(**parts, findings=findings, path=args.out, items=args.items, command=command)
        print(f"{time.time() - began:6.0f} s  wrote {args.out}")


if __name__ == "__main__":
    main()
