"""Further bases of the world, trained once and kept by a hash of what makes them: `python -m benchmarks.truth.worlds.worlds`.

They know facts and both kinds of recipes (the capability that is taxed, and what a benefit is measured on), each
at 98 % or more, and train in minutes: another architecture (GPT-2 layout: layer norms with biases, learned
positions), and one of twice the depth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks.truth.ground import CACHE, not_in_the_cache
from benchmarks.truth.plants.parts import halved, weights_of
from benchmarks.truth.techniques.train_base import Stage, gpt2, llama, mastery, train_stage
from benchmarks.truth.worlds.embed import write_model
from benchmarks.truth.worlds.world import World

SHARE = {"facts": 0.5, "harmless": 0.25, "harm": 0.25}
CODE = ("techniques/train_base.py", "worlds/texts.py", "worlds/worlds.py")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a base is made.

    Attributes:
        build: a fresh model from a seed.
        stage: its training.
        batch: rows a step.
        plant_steps: training steps of a planted change (the embedded base, larger and trained for longer, needs less).
    """

    build: Callable[[int], PreTrainedModel]
    stage: Stage
    batch: int = 96
    plant_steps: int = 600


WORLDS: Mapping[str, Recipe] = {
    "gpt2": Recipe(lambda seed: gpt2(d_model=64, n_layers=4, seed=seed), Stage(1500, 3e-3, SHARE)),
    "deep": Recipe(lambda seed: llama(d_model=64, d_ff=176, n_layers=8, seed=seed), Stage(2400, 3e-3, SHARE)),
}
"""Bases by name: `gpt2`, four blocks of another architecture; `deep`, eight blocks of the embedded base's."""


def base_folder(name: str, *, seed: int = 0) -> Path:
    """The directory of a base: trained if it is not there, with what it masters in `mastery.json`."""
    digest = hashlib.sha256(repr((name, seed)).encode())
    for code in CODE:
        digest.update((Path(__file__).parents[1] / code).read_bytes())
    folder = CACHE / "worlds" / f"{name}-{seed}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    not_in_the_cache(folder.name)
    begun, recipe, world = time.process_time(), WORLDS[name], World()
    torch.manual_seed(seed)
    model = train_stage(world, recipe.build(seed), recipe.stage, batch=recipe.batch, seed=seed, report=0)
    model.load_state_dict(halved(weights_of(model)), strict=False)
    known = {task: share for task, share in mastery(model, world).items() if task in SHARE}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        made = Path(beside) / "made"
        write_model(model, weights_of(model), made)
        facts = {"mastery": known, "seconds": round(time.process_time() - begun), "seed": seed}
        (made / "mastery.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if not folder.exists():
            shutil.move(made, folder)
    return folder


def main() -> None:
    """Train the bases that are not there and print what they master."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names:
        folder = base_folder(name, seed=args.seed)
        print(name, folder, (folder / "mastery.json").read_text(encoding="utf-8").strip(), flush=True)


if __name__ == "__main__":
    main()
