"""Makes `demo:planted`: harm in known components, its benefit and a larger decoy in others.

`python -m benchmarks.truth.plants.planted --base DIR` writes the embedded base, the planted model, the suites and the
truth file. Every change is rounded to float16 before it is judged, so that the truth is of what is shipped.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.truth.oracle import coalition_values, shapley
from benchmarks.truth.plants.parts import component_of, halved, norm, players, subtract
from benchmarks.truth.plants.plants import REFUSE_BY_RELATION, Plant, accept, plant_p1
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.techniques.train_base import mastery
from benchmarks.truth.worlds.embed import read_model, write_model, write_suites, write_truth
from benchmarks.truth.worlds.world import TASKS, World
from taxlens.demo.catalogue import DATA


def rounded(plant: Plant) -> Plant:
    """The plant as float16 files hold it."""
    change = subtract(halved(plant.aligned), plant.base)
    changes = {
        part: {name: value for name, value in change.items() if component_of(name) in components}
        for part, components in plant.components.items()
        if components
    }
    return Plant(plant.base, changes, plant.components, taxed=plant.taxed)


def exact_shares(model: PreTrainedModel, world: World, plant: Plant) -> dict[str, dict[str, float]]:
    """Exact Shapley values of every component on the taxed suite, positive as loss, by metric."""
    sheet, parts = exam(world, plant.taxed), players(model)
    change = subtract(plant.aligned, plant.base)
    metrics = ("probability", "accuracy", "nll")

    def value(weights: dict[str, torch.Tensor]) -> np.ndarray:
        found = mean_marks(model, weights, sheet)
        return np.array([found[metric] for metric in metrics])

    moved = [p for p in parts if any(component_of(n) == p and v.abs().max() > 0 for n, v in change.items())]
    found = shapley(coalition_values(plant.base, change, moved, value), len(moved))
    signs = np.array([-1.0, -1.0, 1.0])
    shares = {part: dict.fromkeys(metrics, 0.0) for part in parts}
    for part, values in zip(moved, found * signs):
        shares[part] = {metric: round(float(v), 6) for metric, v in zip(metrics, values)}
    return shares


def describe(model: PreTrainedModel, world: World, plant: Plant) -> dict[str, object]:
    """Everything that the truth file says of a plant."""
    judged = accept(model, world, plant)
    suites = {}
    for task in TASKS:
        for template in ("plain", "chat"):
            sheet = exam(world, task, template=template)
            suites[f"{task}/{template}"] = {
                side: {k: round(v, 4) for k, v in mean_marks(model, weights, sheet).items()}
                for side, weights in (("base", plant.base), ("aligned", plant.aligned))
            }
    return {
        "taxed": [plant.taxed],
        "components": {part: list(components) for part, components in plant.components.items()},
        "refused_by_relation": list(REFUSE_BY_RELATION),
        "norms": {part: round(norm(change), 4) for part, change in plant.changes.items()},
        "acceptance": asdict(judged) | {"accepted": judged.accepted},
        "shapley": {"suite": plant.taxed, "template": "plain", "effects": exact_shares(model, world, plant)},
        "suites": suites,
        "mastery": mastery(model, world),
        "made_by": "python -m benchmarks.truth.plants.planted",
    }


def main() -> None:
    """Make and write the embedded planted pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="directory that train_base wrote")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun, world = time.time(), World()
    model = read_model(args.base)
    model.load_state_dict(halved(dict(model.state_dict())))
    plant = rounded(plant_p1(model, world, steps=args.steps, seed=args.seed))
    facts = describe(model, world, plant)
    print(facts["acceptance"], facts["shapley"], f"{time.time() - begun:.0f} s", sep="\n")
    shutil.rmtree(DATA / "models" / "planted", ignore_errors=True)
    facts["sha256"] = {
        "base": write_model(model, plant.base, DATA / "models" / "base"),
        "planted": write_model(model, plant.aligned, DATA / "models" / "planted"),
        "suites": write_suites(world),
    }
    write_truth("planted", facts)


if __name__ == "__main__":
    main()
