"""P10: harm as a low-rank adapter, written in PEFT's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file


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
