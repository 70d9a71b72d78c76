"""State plants by name and seed, each with the test that accepts it: `python -m benchmarks.truth.plants.state_plants`.

The tests look at weights, streams and answers directly, never at what `taxlens diagnose` says of a plant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from transformers import PreTrainedModel

from benchmarks.truth.ground import STATES, made, remembered
from benchmarks.truth.plants.parts import Weights, add, subtract, weights_of
from benchmarks.truth.plants.states import (
    StatePlant,
    plant_attenuated,
    plant_erased,
    plant_rerouted,
    plant_rotated,
    plant_suppressed,
)
from benchmarks.truth.scoring import exam, mean_marks
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.texts import ask
from benchmarks.truth.worlds.world import World
from taxlens.demo import resolve


def _kept(seed: int) -> float:
    """How much of a direction an attenuated plant keeps: .1 to .3, less where the plant lies deeper."""
    return float(np.random.default_rng([seed, 23]).uniform(0.15, 0.3)) * (0.6 if seed % 2 else 1.0)


BUILDERS: Mapping[str, Callable[[PreTrainedModel, World, int], StatePlant]] = {
    "suppressed": lambda model, world, seed: plant_suppressed(model, world, layer=(2, 1)[seed % 2], seed=seed),
    "rotated": lambda model, world, seed: plant_rotated(model, world, layer=(2, 1)[seed % 2], seed=seed),
    "attenuated": lambda model, world, seed: plant_attenuated(model, world, layer=(1, 2)[seed % 2], keep=_kept(seed)),
    "erased": lambda model, world, seed: plant_erased(model, world, seed=seed),
    "rerouted": lambda model, world, seed: plant_rerouted(model, world, seed=seed),
}
"""(base, world, seed) to a plant of each state; the layer and the strength go in turn with the seed."""


VERSION = {"attenuated": 1}
"""Raised where a builder's arguments change, so that what was made before is not taken for it."""


def state_plant(model: PreTrainedModel, world: World, state: str, *, seed: int) -> StatePlant:
    """A plant of a state: made once, kept under .cache/truth.

    Args:
        model: the embedded base.
        world: its world.
        state: one of `BUILDERS`.
        seed: of draws, layer and strength.
    """

    def make() -> dict[str, Any]:
        plant = BUILDERS[state](model, world, seed)
        return {"task": plant.task, "layer": plant.layer, "weights": plant.weights, "directions": plant.directions}

    return StatePlant(state, **made(f"state-{state}", make, state, seed, VERSION.get(state, 0), code=STATES))


JUDGES = (*STATES, "state_plants.py")


@dataclass(frozen=True, slots=True)
class StateAcceptance:
    """What a state plant is by direct inspection.

    Attributes:
        tax: probability of the right choice lost on the plant's suite.
        accuracy_lost: accuracy lost.
        refused: probability of the refusal in the aligned model.
        undone: share of the tax that comes back when the planted directions are put right by hand (nan: none).
        left: what is left of the differences between questions in the stream after the plant's layer, over base's.
        silent: tax of the silenced part alone, before others learned its work (rerouted only, else nan).
        accepted: whether the plant may serve as a truth.
    """

    tax: float
    accuracy_lost: float
    refused: float
    undone: float
    left: float
    silent: float
    accepted: bool


def accept_state(model: PreTrainedModel, world: World, plant: StatePlant) -> StateAcceptance:
    """The test of a state plant.

    suppressed: a tax of at least .3, made by refusals, of which taking one direction out of the stream returns
    .7; rotated: a tax of at least .2 that the inverse map returns; attenuated: a tax of at least .1, of which .7 returns so, and the
    planted directions at most .6 as large (the norms of the stream give some back); erased: a tax of at least .3 and nothing left between subjects;
    rerouted: a tax below .03 although the silenced part alone costs at least .2.
    """
    base, sheet = weights_of(model), exam(world, plant.task)
    before, after = (mean_marks(model, weights, sheet) for weights in (base, plant.weights))
    tax, lost = (before[key] - after[key] for key in ("probability", "accuracy"))
    left = _left(model, world, plant)
    undone = silent = float("nan")
    if plant.state == "suppressed" and tax > 0:
        undone = (_without_direction(model, plant, sheet) - after["probability"]) / tax
    if plant.state in ("rotated", "attenuated") and tax > 0:
        undone = (_turned_back(model, world, plant, sheet) - after["probability"]) / tax
    if plant.state == "rerouted":
        name = f"model.layers.{plant.layer}.mlp.down_proj.weight"
        quiet = {**base, name: torch.zeros_like(base[name])}
        silent = before["probability"] - mean_marks(model, quiet, sheet)["probability"]
    accepted = {
        "suppressed": tax >= 0.3 and after["refusal"] >= 0.5 and undone >= 0.7,
        "rotated": tax >= 0.2 and undone >= 0.95 and abs(left - 1) <= 0.05,
        "attenuated": tax >= 0.1 and undone >= 0.7 and left <= 0.6,
        "erased": tax >= 0.3 and left <= 1e-3,
        "rerouted": abs(tax) <= 0.03 and silent >= 0.2,
    }[plant.state]
    return StateAcceptance(tax, lost, after["refusal"], undone, left, silent, bool(accepted))


def judged_state(model: PreTrainedModel, world: World, state: str, *, seed: int) -> dict[str, Any]:
    """A state plant's acceptance as JSON values, judged once; nan where a figure does not apply."""

    def judge() -> dict[str, Any]:
        return asdict(accept_state(model, world, state_plant(model, world, state, seed=seed)))

    kept = remembered(f"state-{state}-acceptance", judge, state, seed, VERSION.get(state, 0), code=JUDGES)
    return kept | {"state": state, "seed": seed}


@torch.no_grad()
def _streams(model: PreTrainedModel, weights: Weights, world: World, plant: StatePlant) -> torch.Tensor:
    texts = ask(world.questions(plant.task), template="plain")
    asked = {"input_ids": texts.ids, "output_hidden_states": True}
    states = functional_call(model, weights, kwargs=asked).hidden_states[plant.layer + 1]
    return states[torch.arange(len(texts)), texts.start - 1]


def _left(model: PreTrainedModel, world: World, plant: StatePlant) -> float:
    """Spread between subjects within a relation, in the planted directions where there are any, over the base's."""
    sizes = []
    for weights in (weights_of(model), plant.weights):
        states = _streams(model, weights, world, plant)
        relations = torch.tensor([q.key[1] for q in world.questions(plant.task)])
        kept = torch.cat([states[relations == r] - states[relations == r].mean(0) for r in relations.unique()])
        if plant.state in ("rotated", "attenuated") and plant.directions is not None:
            kept = kept @ plant.directions.T
        sizes.append(float(kept.norm()))
    return sizes[1] / sizes[0]


def _without_direction(model: PreTrainedModel, plant: StatePlant, sheet: Any) -> float:
    """Probability of the right choice when the gate's output direction is taken out of its matrix's change."""
    assert plant.directions is not None
    base = weights_of(model)
    change = subtract(plant.weights, base)
    unit = plant.directions[0]
    mended = {n: v - torch.outer(unit, unit @ v) if v.abs().max() > 0 and v.ndim == 2 else v for n, v in change.items()}
    return mean_marks(model, add(base, mended), sheet)["probability"]


def _turned_back(model: PreTrainedModel, world: World, plant: StatePlant, sheet: Any) -> float:
    """Probability of the right choice when the planted directions' coordinates are mapped back to the base's.

    The linear map [k, k] is fitted to the streams of the plant's questions at the last prompt token, and put
    behind the plant's block at every token.
    """
    assert plant.directions is not None
    basis = plant.directions.double()
    ours, theirs = (_streams(model, w, world, plant).double() @ basis.T for w in (plant.weights, weights_of(model)))
    back = torch.linalg.lstsq(ours, theirs).solution - torch.eye(len(basis), dtype=torch.float64)
    block = model.get_submodule(f"model.layers.{plant.layer}")

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        moved = stream + ((stream.double() @ basis.T) @ back @ basis).to(stream.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = block.register_forward_hook(hook)
    try:
        return mean_marks(model, plant.weights, sheet)["probability"]
    finally:
        handle.remove()


def main() -> None:
    """Make and judge plants of every state."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("states", nargs="*", default=list(BUILDERS))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    world, model = World(), read_model(resolve("demo:base"))
    for state in args.states:
        for seed in range(args.seeds):
            begun = time.time()
            judged = asdict(accept_state(model, world, state_plant(model, world, state, seed=seed)))
            numbers = {k: round(v, 3) for k, v in judged.items() if isinstance(v, float)}
            print(f"{state} {seed}: accepted {judged['accepted']} {numbers} {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
