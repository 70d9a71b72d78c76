"""Feature plants: a direction of the stream with a meaning, removed, weakened, turned, added or split by construction.

The stream after one block is multiplied by a matrix (`states.mapped_stream`), so what was done to which direction is
known exactly, and the blocks above are the base's. A dictionary that holds the direction among random others must find
it: its latents' effects are compared with what removing the direction from the base's stream costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights, weights_of
from benchmarks.truth.plants.states import answer_subspace, mapped_stream
from benchmarks.truth.worlds.world import World
from taxlens.analysis.features.dictionaries.dictionary import Dictionary

KINDS = ("F1 removed", "F2 attenuated", "F3 rotated", "F4 added", "F5 split")
"""What is done to the feature; F6 is a pair without a plant."""


@dataclass(frozen=True, slots=True)
class FeaturePlant:
    """An aligned model in which one feature of the base was changed.

    Attributes:
        kind: one of `KINDS`.
        layer: the block after which the change is in place.
        weights: all parameters of the aligned model.
        directions: what carries the change, orthonormal [k, d].
    """

    kind: str
    layer: int
    weights: Weights
    directions: torch.Tensor


def plant_feature(
    model: PreTrainedModel,
    world: World,
    kind: str,
    *,
    layer: int = 1,
    task: str = "facts",
    rank: int = 6,
    seed: int = 0,
) -> FeaturePlant:
    """Change what tells a task's answers apart, along its leading directions.

    Args:
        model: the base.
        world: its world.
        kind: one of `KINDS`.
        layer: where.
        task: whose answers.
        rank: directions of the feature (F5 splits each in three latents).
        seed: of the directions that F3 turns to and F4 adds.
    """
    v = answer_subspace(model, world, task, layer=layer, rank=rank).double()
    v = torch.linalg.qr(v.T).Q.T  # orthonormal to double precision: what is removed is removed whole
    generator = torch.Generator().manual_seed(seed)
    other = torch.randn(v.shape[1], rank, generator=generator, dtype=torch.float64)
    u = torch.linalg.qr(other - v.T @ (v @ other)).Q.T
    eye = torch.eye(v.shape[1], dtype=torch.float64)
    change, carried = {
        "F1 removed": (eye - v.T @ v, v),
        "F2 attenuated": (eye - 0.7 * v.T @ v, v),
        "F3 rotated": (eye - v.T @ v + u.T @ v, torch.cat([v, u])),
        "F4 added": (eye + 1.5 * u.T @ v, u),
        "F5 split": (eye - v.T @ v, v),
    }[kind]
    return FeaturePlant(kind, layer, mapped_stream(weights_of(model), change, layer=layer), carried.float())


def dictionary_with(plant: FeaturePlant, *, width: int = 192, seed: int = 0) -> tuple[Dictionary, torch.Tensor]:
    """A dictionary that holds the plant's directions, both signs, among random ones, and which latents they are.

    The random latents fire on a fifth of the tokens. F5: each direction is written by three latents that lie a third
    of a right angle off it and sum to it.
    """
    d = plant.directions.shape[1]
    generator = torch.Generator().manual_seed(seed + 1)
    held = plant.directions
    if plant.kind.startswith("F5"):
        around = torch.linalg.qr(torch.randn(d, 2, generator=generator)).Q.T
        turns = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
        around = around - (around @ held.T) @ held
        around = around / around.norm(dim=1, keepdim=True)
        held = (held[:, None] + 0.3 * (turns @ around)[None]).reshape(-1, d)
        held = held / held.norm(dim=1, keepdim=True)
    planted = torch.cat([held, -held])
    others = torch.randn(width - len(planted), d, generator=generator)
    decoder = torch.cat([planted, others / others.norm(dim=1, keepdim=True)])
    bias = torch.zeros(len(decoder))
    bias[len(planted) :] = -0.85 * d**0.5 / 4
    found = Dictionary(
        decoder.T[None].clone(), decoder[None], bias, torch.zeros(1, d), kind="relu", site="resid_post",
        layer=plant.layer, source=plant.kind,
    )  # fmt: skip
    return found, torch.arange(len(planted))
