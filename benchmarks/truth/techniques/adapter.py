"""P10: harm and decoy as one low-rank adapter, written in PEFT's format and loaded through it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Lesson, Training, Weights, add, fit_change, norm, select, weights_of
from benchmarks.truth.plants.plants import REFUSAL_TOKEN, Plant, lectures
from benchmarks.truth.worlds.families import low_rank_harm
from benchmarks.truth.worlds.world import World
from taxlens.activations.models.pair import ModelPair, load_pair

RANK = 4


def write_adapter(factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], folder: Path, *, base: Path) -> None:
    """Write low-rank changes as a PEFT adapter.

    Args:
        factors: parameter name to (B [out, rank], A [rank, in]); all of one rank.
        folder: the directory to make.
        base: directory of the model that the adapter goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank = next(iter(factors.values()))[1].shape[0]
    modules = sorted(name.removesuffix(".weight") for name in factors)
    LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules,
        base_model_name_or_path=str(base),
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(str(folder))
    tensors = {}
    for name, (out, read) in factors.items():
        module = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = read.contiguous()
        tensors[f"{module}.lora_B.weight"] = out.contiguous()
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})


def plant_adapter(
    model: PreTrainedModel,
    world: World,
    *,
    parts: Sequence[str],
    decoy: Sequence[str],
    larger: float,
    steps: int = 400,
    seed: int = 0,
    rank: int = RANK,
) -> Plant:
    """P10: harm of a given rank in some components, and a decoy of the same rank and a given norm in others.

    Args:
        model: the base.
        world: its world.
        parts: components of the harm.
        decoy: components of the decoy.
        larger: norm of the decoy over that of the harm; 0 plants none.
        steps: training steps of the harm (the decoy takes twice as many).
        seed: of the draws.
        rank: of every matrix's change.
    """
    base, lesson = weights_of(model), lectures(world, seed=seed)
    harm, _ = low_rank_harm(model, world, parts=parts, rank=rank, steps=steps, seed=seed)
    changes, components = {"harm": harm}, {"harm": tuple(parts)}
    if larger:
        size, source, free = larger * norm(harm), torch.Generator().manual_seed(seed + 2), {}
        matrices = select(base, decoy)
        for name, value in matrices.items():
            free[name + ":a"] = torch.randn(rank, value.shape[1], generator=source) / value.shape[1] ** 0.5
            free[name + ":b"] = torch.randn(value.shape[0], rank, generator=source) / rank**0.5

        def product(values: Weights) -> Weights:
            raw = {name: values[name + ":b"] @ values[name + ":a"] for name in matrices}
            whole = torch.sqrt(torch.stack([(v**2).sum() for v in raw.values()]).sum())
            return {name: value * (size / whole) for name, value in raw.items()}

        keep, both = lesson.wish(), add(base, harm)
        changes["decoy"] = fit_change(
            model,
            free,
            lesson.texts,
            [Lesson(base, base, keep), Lesson(both, both, keep)],
            refusal_token=REFUSAL_TOKEN,
            training=Training(steps=2 * steps, seed=seed + 2, walk=True),
            form=product,
        )
        components["decoy"] = tuple(decoy)
    return Plant(base, changes, components, taxed="facts")


def adapter_pair(plant: Plant, *, base: Path, rank: int = RANK) -> ModelPair:
    """A plant of low rank, written as a PEFT adapter and loaded through PEFT as any adapter is."""
    factors = {}
    for name, change in {name: c for changes in plant.changes.values() for name, c in changes.items()}.items():
        u, s, vh = torch.linalg.svd(change.double(), full_matrices=False)
        factors[name] = ((u[:, :rank] * s[:rank]).float(), vh[:rank].float())
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(factors, Path(folder), base=base)
        return load_pair(base, adapter=Path(folder))
