"""A LoRA pair restored as an adapter: the same files, with part of the low-rank update undone in place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from taxlens.activations.models.adapter import apply_adapter
from taxlens.analysis.frontier.plan_files import PlanRecord
from taxlens.analysis.frontier.restore import check_plan, describe
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import common_rows, difference_of
from taxlens.core.artifacts import new_directory
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.json_text import read_json
from taxlens.core.plain_files import read_tensors

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

_WEIGHTS = "adapter_model.safetensors"
_WHOLE = -1
"""Stands for all of a parameter where triples are counted from 0."""


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
        UsageError: the plan is at level head or neuron, an adapter that is no plain LoRA, a plan that undoes what the
            adapter cannot express, or `out` exists.
        CheckError: read back, the adapter is not what was measured; nothing is written.
        BenefitLossError, PairMismatchError: as for `restore`.
    """
    check_plan(pair, plan, accept_benefit_loss=accept_benefit_loss)
    adapter = Path(adapter)
    config = read_json(adapter / "adapter_config.json", title="adapter_config.json cannot be read.")
    if plan.unit not in ("singular", "component") or config.get("peft_type") != "LORA" or config.get("use_dora"):
        rows = [("level", plan.unit), ("adapter", config.get("peft_type"))]
        fix = "write the whole checkpoint with `restore`."
        raise UsageError(explain("only plans of singular triples or components fit into a LoRA adapter.", rows, fix))
    tensors, _ = read_tensors(adapter / _WEIGHTS, title="the adapter cannot be read.", fix="copy it again.")
    undone = _undone(pair, plan, tensors)
    with new_directory(out) as folder:
        save_file({key: value.contiguous() for key, value in undone.items()}, folder / _WEIGHTS)
        shutil.copy(adapter / "adapter_config.json", folder / "adapter_config.json")
        _check_reloaded(pair, plan, folder, next(iter(tensors.values())).dtype)
        describe(pair, plan, folder)
    return Path(out)


def _undone(pair: ModelPair, plan: PlanRecord, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An adapter's tensors with a plan's units undone: low-rank factors scaled, whole tensors moved to the base's.

    Raises:
        UsageError: the plan undoes a parameter that no tensor of the adapter can express.
    """
    kept = _kept(pair, plan)
    base = dict(pair.base.model.named_parameters(remove_duplicate=False))
    done: set[tuple[str, str]] = set()
    out = dict(tensors)
    for key, value in tensors.items():
        module, part = _place(key)
        if part == "lora_A.weight":
            other = key.replace("lora_A", "lora_B")
            a, b = _scaled(value, tensors[other], kept.get((module, "weight"), {}))
            out[key], out[other] = a.to(value.dtype), b.to(value.dtype)
            done.add((module, "weight"))
        elif part == "lora_embedding_B" and set(share := kept.get((module, "weight"), {})) <= {_WHOLE}:
            out[key] = (value.double() * share.get(_WHOLE, 1.0)).to(value.dtype)
            done.add((module, "weight"))
        elif part == "lora_B.bias":
            out[key] = value * kept.get((module, "bias"), {}).get(_WHOLE, 1.0)
            done.add((module, "bias"))
        elif part in ("weight", "bias") and set(share := kept.get((module, part), {})) <= {_WHOLE}:
            out[key] = _towards(value, base.get(f"{module}.{part}"), share.get(_WHOLE, 1.0))
            done.add((module, part))
    difference = difference_of(pair)
    left = [where for where in kept if where not in done and bool(difference.change(*where).any())]
    if left:
        rows = [("plan", plan.name), ("parameters", f"{len(left)}, first {'.'.join(left[0])}")]
        fix = "write the whole checkpoint with `restore`."
        raise UsageError(explain("the plan undoes what this adapter cannot express.", rows, fix))
    return out


def _place(key: str) -> tuple[str, str]:
    """The base's module that an adapter's tensor belongs to, and which tensor of it."""
    name = key.removeprefix("base_model.model.").replace(".modules_to_save", "").replace(".base_layer", "")
    module, mark, part = name.partition(".lora_")
    return (module, "lora_" + part) if mark else (name.rpartition(".")[0], name.rpartition(".")[2])


def _towards(own: torch.Tensor, base: torch.Tensor | None, kept: float) -> torch.Tensor:
    """A whole tensor with a share of its change from the base kept; rows that the base has not stay."""
    if base is None or kept == 1.0:
        return own
    out = own.clone()
    mine, start = common_rows(out, base.detach().to("cpu"))
    mine.copy_((start.double() + kept * (mine.double() - start.double())).to(own.dtype))
    return out


def _kept(pair: ModelPair, plan: PlanRecord) -> dict[tuple[str, str], dict[int, float]]:
    """By module and parameter, what is kept of each singular triple (`_WHOLE`: of all of it)."""
    difference = difference_of(pair)
    kept: dict[tuple[str, str], dict[int, float]] = {}
    for name, coefficient in plan.undo.items():
        for part in difference.unit(name, level=plan.unit).parts:
            if part.rest:
                rows = [("plan", plan.name), ("unit", name)]
                fix = "write the whole checkpoint with `restore`."
                raise UsageError(explain("the plan undoes what this adapter cannot express.", rows, fix))
            triple = _WHOLE if part.triple is None else part.triple
            kept.setdefault((part.module, part.parameter), {})[triple] = 1 - coefficient
    return kept


def _check_reloaded(pair: ModelPair, plan: PlanRecord, folder: Path, dtype: torch.dtype) -> None:
    """Read the written adapter back and compare it with the mixture that was measured, before a card says so.

    Raises:
        CheckError: a weight differs by more than rounding and a hundredth of what was undone.
    """
    again = dict(apply_adapter(pair.base, folder).model.named_parameters(remove_duplicate=False))
    aligned = {name: p.detach().clone() for name, p in pair.aligned.model.named_parameters(remove_duplicate=False)}
    start = dict(pair.base.model.named_parameters(remove_duplicate=False))
    worst, where = 0.0, ""
    with mixture(pair, plan.undo, level=plan.unit) as model:
        for name, wanted in model.named_parameters(remove_duplicate=False):
            ends = common_rows(aligned[name].double(), start[name].double())
            rounding = torch.finfo(wanted.dtype).eps * float(wanted.double().norm())
            allowed = 0.01 * float((wanted.double() - aligned[name].double()).norm()) + 4 * rounding
            allowed += 4 * torch.finfo(dtype).eps * float((ends[0] - ends[1]).norm())
            off = float((again[name].double() - wanted.double()).norm()) / (allowed or 1.0)
            worst, where = max((worst, where), (off, name))
    if worst > 1:
        rows = [("plan", plan.name), ("weight", where), ("off by", f"{worst:.3g} times what rounding explains")]
        fix = "write the whole checkpoint with `restore`."
        raise CheckError(explain("read back, the adapter is not what was measured.", rows, fix))


def _scaled(a: torch.Tensor, b: torch.Tensor, kept: dict[int, float]) -> tuple[Any, Any]:
    """A [r, in] and B [out, r] whose product has its singular values scaled, in the order of size."""
    if not kept:
        return a, b
    if _WHOLE in kept:
        return a, b.double() * kept[_WHOLE]
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T)
    factors = torch.tensor([kept.get(k, 1.0) for k in range(len(s))], dtype=torch.float64)
    root = s.sqrt()
    return (root[:, None] * vh) @ q_a.T, (q_b @ u) * (root * factors)
