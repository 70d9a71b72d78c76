"""Every order of the frontier on embedded pairs at equal benefit: `python -m benchmarks.accuracy.frontier_embedded`.

Pairs: `demo:planted`; the shipped `demo:refusal`, whose training taxes several suites; and the same recipe with other
seeds. Order "checkpoint" is the same training stopped half way. Plans are kept under .cache/frontier/embedded, so that
a run that was stopped goes on. Tables go to --out; docs/frontier.md quotes them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.truth.ground import FINDINGS, made
from benchmarks.truth.page.confusion import pair_in_memory
from benchmarks.truth.plants.parts import halved
from benchmarks.truth.techniques.align import RECIPES
from benchmarks.truth.techniques.techniques import TECHNIQUES
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from taxlens.activations.items.items import read_suite
from taxlens.activations.models.loading import load_model
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.analysis.frontier.front import Frontier
from taxlens.analysis.frontier.measure import frontier
from taxlens.demo import resolve, resolve_suite

ORDERS = (
    "path", "one_gradient", "magnitude", "smallest", "random", "uniform", "per_layer", "learned_mask", "weight_patch",
    "relearn",
)  # fmt: skip
TAXABLE = ("facts", "addition", "comparison", "copy", "harmless")
SHARES = (0.01, 0.025, 0.05, 0.1, 0.2)


def trained(seed: int, *, share: float = 1.0) -> ModelPair:
    """The embedded base and the refusal recipe with another seed, or stopped after a share of its steps."""
    recipe = replace(RECIPES["refusal"], seed=seed)
    recipe = replace(recipe, steps=round(recipe.steps * share))

    def make() -> dict[str, torch.Tensor]:
        return halved(TECHNIQUES["refusal"](read_model(resolve("demo:base")), World(), recipe))

    return pair_in_memory(made("refusal-recipe", make, repr(recipe), code=FINDINGS))


def pairs(names: list[str]) -> dict[str, tuple[ModelPair, dict[str, Any]]]:
    """The named pairs, each with the earlier checkpoints that it has."""
    found: dict[str, tuple[ModelPair, dict[str, Any]]] = {}
    for name in names:
        if name.startswith("seed"):
            seed = int(name.removeprefix("seed"))
            found[name] = (trained(seed), {"half-way": trained(seed, share=0.5).aligned})
        else:
            found[name] = (make_pair(load_model(resolve("demo:base")), load_model(resolve(f"demo:{name}"))), {})
    return found


def front_of(pair: ModelPair, checkpoints: dict[str, Any], *, items: int, folder: Path) -> Frontier:
    """The frontier of a pair over every suite that its training taxed, over-refusal among them."""
    kinds = {"harm": "benefit"}
    suites = [
        read_suite(resolve_suite(f"demo:{task}"), name=task, kind=kinds.get(task, "capability"))
        for task in (*TAXABLE, "harm")
    ]
    return frontier(
        pair, suites, benefit="harm", against="harmless", candidates=TAXABLE, checkpoints=checkpoints, folder=folder,
        orders=(*ORDERS, *(["checkpoint"] if checkpoints else [])), shares=SHARES, draw_shares=(0.05,), draws=20,
        uniform=(0.05, 0.1, 0.25, 0.5, 0.75), keeps=(1.05, 1.15), items=items, train_items=items, max_gradients=7, generate=60,
        generate_plans=("path-5%", "one_gradient-5%", "magnitude-5%", "random-5%-d00", "uniform-0.5"),
    )  # fmt: skip


def left_out(front: Frontier) -> pd.DataFrame:
    """What path plans return of a suite that their choice did not see, beside those that saw it."""
    rows = []
    for plan in front.plans:
        if plan.left_out:
            whole = plan.name.partition("-without-")[0]
            blind, seeing = (front.returned(name, suite=plan.left_out) for name in (plan.name, whole))
            rows.append((plan.left_out, whole, blind.value, blind.low, blind.high, seeing.value))
    return pd.DataFrame(rows, columns=["suite", "plan", "left_out", "low", "high", "seen"])


def where_undone(front: Frontier, name: str) -> dict[str, float]:
    """Share of a plan's undone singular triples by component."""
    plan, found = front.plan(name), {}
    for unit, coefficient in plan.undo.items():
        component = ".".join(unit.split(".")[:2])
        found[component] = found.get(component, 0.0) + coefficient
    total = sum(found.values())
    return {component: value / total for component, value in found.items()}


def alike(fronts: dict[str, Frontier], name: str) -> pd.DataFrame:
    """How alike the chosen components are between adapters: cosine of where a plan's triples lie."""
    rows = []
    for one, other in itertools.combinations(fronts, 2):
        mine, theirs = (where_undone(fronts[key], name) for key in (one, other))
        keys = sorted({*mine, *theirs})
        a, b = (np.array([side.get(key, 0.0) for key in keys]) for side in (mine, theirs))
        rows.append((one, other, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
    return pd.DataFrame(rows, columns=["pair", "other", "cosine"])


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["planted", "refusal", "seed1", "seed2"])
    parser.add_argument("--items", type=int, default=60, help="held-out and training items a suite")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier-embedded"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 250)
    fronts: dict[str, Frontier] = {}
    for name, (pair, checkpoints) in pairs(args.pairs).items():
        begun = time.process_time()
        front = front_of(pair, checkpoints, items=args.items, folder=Path(".cache/frontier/embedded") / name)
        fronts[name] = front
        tables = {
            "frontier": front.to_frame(), "comparison": front.comparison_frame(), "matched": front.matched_frame(),
            "left_out": left_out(front), "stability": front.stability, "leaks": front.leaks,
        }  # fmt: skip
        for table, frame in tables.items():
            frame.to_csv(args.out / f"{name}-{table}.csv", index=False)
        print(f"\n== {name}: {time.process_time() - begun:.0f} s of processor\n{front}\n{front.notes}")
        print(f"taxed {front.taxed}; prediction {front.prediction()}")
        print(tables["matched"].round(3).to_string(index=False))
        print(tables["left_out"].round(3).to_string(index=False))
        print(tables["stability"].round(3).to_string(index=False))
        made_by_generation = {key: round(front.benefit_generated(key), 3) for key in front.generated}
        print(f"refusals by generation, harmful minus harmless: {made_by_generation}", flush=True)
    others = {name: front for name, front in fronts.items() if name != "planted"}
    if len(others) > 1:
        frame = alike(others, "path-5%")
        frame.to_csv(args.out / "alike.csv", index=False)
        print(f"\nchosen components, by seed of the training\n{frame.round(3).to_string(index=False)}")


if __name__ == "__main__":
    main()
