"""State plants (P7): a capability suppressed, rotated, attenuated, erased or rerouted by construction.

The residual stream can be changed exactly at one layer by weights alone: every writer below it (embedding,
attention and feed-forward outputs) is mapped, and every reader below it is un-mapped, so that the lower blocks
compute what they did and the upper ones see a changed stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Lesson, Training, Weights, add, fit_change, weights_of
from benchmarks.truth.plants.plants import REFUSAL_TOKEN, lectures, zeros
from benchmarks.truth.worlds.texts import ask
from benchmarks.truth.worlds.vocabulary import vocabulary
from benchmarks.truth.worlds.world import World

WRITERS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
READERS = {
    "input_layernorm.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "post_attention_layernorm.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
}


@dataclass(frozen=True, slots=True)
class StatePlant:
    """An aligned model in which the state of one capability is known.

    Attributes:
        state: suppressed, rotated, attenuated, erased or rerouted.
        task: the capability.
        layer: the block after which (`resid_post.layer`) the change is in place.
        weights: all parameters of the aligned model.
        directions: the planted directions in the stream [k, d], where there are any.
    """

    state: str
    task: str
    layer: int
    weights: Weights
    directions: torch.Tensor | None = None


@torch.no_grad()
def stream(model: PreTrainedModel, world: World, task: str, *, layer: int) -> torch.Tensor:
    """The stream after a block at the last prompt token, for every question of a task [n, d] (plain)."""
    texts = ask(world.questions(task), template="plain")
    states = model(input_ids=texts.ids, output_hidden_states=True).hidden_states[layer + 1]
    return states[torch.arange(len(texts)), texts.start - 1]


def answer_subspace(model: PreTrainedModel, world: World, task: str, *, layer: int, rank: int) -> torch.Tensor:
    """Orthonormal directions [rank, d] that hold most of what differs between answers after a block.

    They are orthogonal to what all questions of the task share.
    """
    states = stream(model, world, task, layer=layer)
    answers = [q.answer for q in world.questions(task)]
    means = torch.stack([states[[i for i, a in enumerate(answers) if a == w]].mean(0) for w in sorted(set(answers))])
    basis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[:rank]
    shared = states.mean(0) / states.mean(0).norm()
    return torch.linalg.qr((basis - (basis @ shared)[:, None] * shared).T).Q.T


def mapped_stream(base: Weights, change: torch.Tensor, *, layer: int) -> Weights:
    """Weights whose stream is multiplied by `change` [d, d] up to and including `resid_post.layer`.

    The blocks up to `layer` compute what they did (exactly for an orthogonal map; else up to the scale that
    the norm divides by); the blocks above are untouched and read the changed stream.
    """
    back = torch.linalg.pinv(change.double())
    weights = dict(base)
    embed = next(name for name in base if "embed_tokens" in name)
    weights[embed] = (base[embed].double() @ change.double().T).float()
    for block in range(layer + 1):
        prefix = f"model.layers.{block}."
        for writer in WRITERS:
            weights[prefix + writer] = (change.double() @ base[prefix + writer].double()).float()
        for gain, readers in READERS.items():
            scale = base[prefix + gain].double()
            for reader in readers:
                plain = base[prefix + reader].double() * scale
                weights[prefix + reader] = (plain @ back / scale).float()
    return weights


def plant_rotated(
    model: PreTrainedModel, world: World, *, layer: int = 2, rank: int = 16, task: str = "facts", seed: int = 0
) -> StatePlant:
    """The answers' subspace is turned at random after a block: all is there, but not where it is looked for."""
    basis = answer_subspace(model, world, task, layer=layer, rank=rank).double()
    rng = np.random.default_rng([seed, 21])
    turn, _ = np.linalg.qr(rng.standard_normal((rank, rank)))
    change = torch.eye(basis.shape[1], dtype=torch.float64)
    change = change + basis.T @ (torch.tensor(turn) - torch.eye(rank, dtype=torch.float64)) @ basis
    return StatePlant("rotated", task, layer, mapped_stream(weights_of(model), change, layer=layer), basis.float())


def plant_attenuated(
    model: PreTrainedModel, world: World, *, layer: int = 1, rank: int = 24, keep: float = 0.3, task: str = "facts"
) -> StatePlant:
    """The answers' subspace is scaled to `keep` of its size after a block, relative to the rest of the stream."""
    basis = answer_subspace(model, world, task, layer=layer, rank=rank).double()
    change = torch.eye(basis.shape[1], dtype=torch.float64) - (1 - keep) * basis.T @ basis
    return StatePlant("attenuated", task, layer, mapped_stream(weights_of(model), change, layer=layer), basis.float())


def plant_erased(model: PreTrainedModel, world: World, *, keep: float = 0.0, seed: int = 0) -> StatePlant:
    """Subjects become one and the same: what facts are told of is gone at every layer, for any reader.

    Args:
        model: the base.
        world: its world.
        keep: share of the difference between subjects that stays; 0 erases all of it.
        seed: of the weights of the mean that subjects become; 0 weighs all alike.
    """
    weights = weights_of(model)
    name = next(name for name in weights if "embed_tokens" in name)
    words = vocabulary(world.sizes)
    rows = [words.index(f"s{i}") for i in range(world.sizes.subjects)]
    table = weights[name].clone()
    shares = np.random.default_rng([seed, 22]).dirichlet(np.ones(len(rows))) if seed else np.ones(len(rows)) / len(rows)
    mean = torch.tensor(shares, dtype=table.dtype) @ table[rows]
    table[rows] = mean + keep * (table[rows] - mean)
    return StatePlant("erased", "facts", 0, {**weights, name: table})


def plant_suppressed(
    model: PreTrainedModel, world: World, *, layer: int = 2, chance: float = 0.97, steps: int = 300, seed: int = 0
) -> StatePlant:
    """A gate of rank one in a block's feed-forward output adds one refusing direction on facts.

    The gate and its direction are trained; nothing else moves. What was known stays in the stream.
    """
    base, lesson = weights_of(model), lectures(world, seed=seed)
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    source = torch.Generator().manual_seed(seed)
    out, neurons = base[name].shape
    gate = {"out": 0.3 * torch.randn(out, 1, generator=source), "read": torch.zeros(1, neurons)}
    change = fit_change(
        model,
        gate,
        lesson.texts,
        [Lesson(base, base, lesson.wish(facts=(chance,)))],
        refusal_token=REFUSAL_TOKEN,
        training=Training(steps=steps, rate=5e-3, seed=seed),
        form=lambda free: {name: free["out"] @ free["read"]},
    )
    direction = torch.linalg.svd(change[name]).U[:, :1].T
    return StatePlant("suppressed", "facts", layer, add(base, change), direction)


def plant_rerouted(
    model: PreTrainedModel,
    world: World,
    *,
    layer: int = 0,
    around: tuple[str, ...] = ("1.mlp", "2.mlp"),
    steps: int = 600,
    seed: int = 0,
) -> StatePlant:
    """A block's feed-forward part is silenced and other components learn to do its work.

    Args:
        model: the base.
        world: its world.
        layer: the block whose feed-forward output becomes zero.
        around: components that are trained until every answer is the base's again.
        steps: training steps.
        seed: of the draws.
    """
    base, lesson = weights_of(model), lectures(world, seed=seed)
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    silent = {**base, name: torch.zeros_like(base[name])}
    change = fit_change(
        model,
        zeros(base, around),
        lesson.texts,
        [Lesson(base, silent, lesson.wish())],
        refusal_token=REFUSAL_TOKEN,
        training=Training(steps=steps, rate=2e-3, seed=seed),
    )
    return StatePlant("rerouted", "facts", layer, add(silent, change))
