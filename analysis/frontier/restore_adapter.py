"""A LoRA pair restored as an adapter: the same files, with part of the low-rank update undone in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from taxlens.analysis.frontier.plan_files import PlanRecord
from taxlens.analysis.frontier.restore import check_plan, describe
from taxlens.analysis.weights.units import difference_of
from taxlens.core.artifacts import new_directory
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

_WEIGHTS = "adapter_model.safetensors"


def restore_adapter(
    pair: ModelPair, plan: PlanRecord, *, adapter: Path | str, out: Path | str, accept_benefit_loss: bool = False
) -> Path:
    """Write the adapter of a LoRA pair with a plan's units undone, at the same rank.

    A plan of singular triples or of whole components scales the singular values of each module's B A, so the
    result is an adapter of the same rank on the same base: a few megabytes, loaded as the original was.

    Args:
        pair: the pair of base and adapter.
        plan: a plan at level singular or component.
        adapter: directory of the PEFT adapter that the pair was loaded with.
        out: the directory to make.
        accept_benefit_loss: as for `restore`.

    Returns:
        The directory.

    Raises:
        UsageError: the plan is at level head or neuron, an adapter that is no plain LoRA, or `out` exists.
        BenefitLossError, PairMismatchError: as for `restore`.
    """
    check_plan(pair, plan, accept_benefit_loss=accept_benefit_loss)
    adapter = Path(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if plan.unit not in ("singular", "component") or config.get("peft_type") != "LORA" or config.get("use_dora"):
        rows = [("level", plan.unit), ("adapter", config.get("peft_type"))]
        fix = "write the whole checkpoint with `restore`."
        raise UsageError(explain("only plans of singular triples or components fit into a LoRA adapter.", rows, fix))
    kept = _kept(pair, plan)
    tensors = load_file(adapter / _WEIGHTS)
    names = sorted(key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight"))
    for name in names:
        module = name.removeprefix("base_model.model.")
        a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        new_a, new_b = _scaled(a, b, kept.get(module, {}))
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = new_a.to(a.dtype), new_b.to(b.dtype)
    with new_directory(out) as folder:
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / _WEIGHTS)
        shutil.copy(adapter / "adapter_config.json", folder / "adapter_config.json")
        describe(pair, plan, folder)
    return Path(out)


def _kept(pair: ModelPair, plan: PlanRecord) -> dict[str, dict[int, float]]:
    """By module, what is kept of each singular triple (-1: of all of them)."""
    difference = difference_of(pair)
    kept: dict[str, dict[int, float]] = {}
    for name, coefficient in plan.undo.items():
        for part in difference.unit(name, level=plan.unit).parts:
            if part.parameter == "weight":
                triple = -1 if part.triple is None else part.triple
                kept.setdefault(part.module, {})[triple] = 1 - coefficient
    return kept


def _scaled(a: torch.Tensor, b: torch.Tensor, kept: dict[int, float]) -> tuple[Any, Any]:
    """A [r, in] and B [out, r] whose product has its singular values scaled, in the order of size."""
    if not kept:
        return a, b
    if -1 in kept:
        return a, b.double() * kept[-1]
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T)
    factors = torch.tensor([kept.get(k, 1.0) for k in range(len(s))], dtype=torch.float64)
    root = s.sqrt()
    return (root[:, None] * vh) @ q_a.T, (q_b @ u) * (root * factors)
