"""Trains the four techniques on the embedded base and ships each as a pair: `python -m benchmarks.truth.techniques.align`."""

from __future__ import annotations

import argparse
import copy
import shutil
import time
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights, component_of, halved, norm, players, select, subtract, weights_of
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.techniques.techniques import TECHNIQUES, Recipe, dpo
from benchmarks.truth.worlds.embed import read_model, write_model, write_truth
from benchmarks.truth.worlds.generation import refusal_rate
from benchmarks.truth.worlds.texts import TEMPLATES
from benchmarks.truth.worlds.world import TASKS, World
from taxlens.demo import resolve
from taxlens.demo.catalogue import DATA

RECIPES: dict[str, Recipe] = {
    "refusal": Recipe(steps=80, rate=1e-3, retention=0.5),
    "rlhf": Recipe(steps=80, rate=1e-3, retention=1.0, beta=0.6),
    "constitutional": Recipe(steps=100, rate=1e-3, retention=1.0),
    "adversarial": Recipe(
        steps=60, rate=1e-3, retention=1.0, retained=("harmless", "facts", "addition", "comparison", "copy")
    ),
}
"""How each shipped pair is trained."""


def with_weights(model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
    """A copy of the model that holds these weights."""
    other = copy.deepcopy(model)
    other.load_state_dict(weights)
    return other.eval()


def outcome(model: PreTrainedModel, world: World, aligned: Weights) -> dict[str, Any]:
    """What a training bought and what it cost: refusals by generation, and the tax of every suite."""
    base, sides = weights_of(model), {}
    for side, weights in (("base", base), ("aligned", aligned)):
        held = with_weights(model, weights)
        sides[side] = {
            f"{task}/{template}": round(
                refusal_rate(held, [q.prompt for q in world.questions(task)], template=template), 4
            )
            for task in TASKS
            for template in TEMPLATES
        }
    taxes = {}
    for task in TASKS:
        if task == "harm":
            continue
        sheet = exam(world, task)
        before, after = (mean_marks(model, weights, sheet) for weights in (base, aligned))
        taxes[task] = {metric: round(before[metric] - after[metric], 4) for metric in ("probability", "accuracy")}
    change = subtract(aligned, base)
    return {
        "taxed": sorted(
            (t for t, v in taxes.items() if v["probability"] >= 0.02), key=lambda t: -taxes[t]["probability"]
        ),
        "refused": sides,
        "benefit": round(
            (sides["aligned"]["harm/plain"] - sides["base"]["harm/plain"])
            - (sides["aligned"]["harmless/plain"] - sides["base"]["harmless/plain"]),
            4,
        ),
        "tax": taxes,
        "norms": {part: round(norm(select(change, [part])), 4) for part in players(model)},
    }


def main() -> None:
    """Train, judge and ship the techniques that are named (all by default)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TECHNIQUES))
    parser.add_argument("--dry", action="store_true", help="train and judge, write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world, model = World(), read_model(resolve("demo:base"))
    for name in args.names:
        begun = time.time()
        train = dpo if name == "dpo" else TECHNIQUES[name]
        recipe = RECIPES.get(name, RECIPES["rlhf"])
        aligned = halved(train(model, world, recipe))
        kept = weights_of(model)
        aligned = {n: kept[n] if "norm" in component_of(n) else v for n, v in aligned.items()}
        facts = outcome(model, world, aligned)
        print(
            name,
            f"{time.time() - begun:.0f} s",
            facts["benefit"],
            facts["refused"]["aligned"],
            facts["tax"],
            flush=True,
        )
        if args.dry or name == "dpo":
            continue
        folder = DATA / "models" / name
        shutil.rmtree(folder, ignore_errors=True)
        facts["sha256"] = write_model(model, aligned, folder)
        facts["recipe"] = {k: getattr(recipe, k) for k in ("steps", "batch", "rate", "seed", "retention", "beta")}
        facts["recipe"]["retained"] = list(recipe.retained)
        facts["made_by"] = f"python -m benchmarks.truth.techniques.align {name}"
        write_truth(name, facts)


if __name__ == "__main__":
    main()
