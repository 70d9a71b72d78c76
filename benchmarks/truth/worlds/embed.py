"""Writes what the package embeds: models, suites and truth files, under taxlens/demo/data."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.truth.plants.parts import Weights
from benchmarks.truth.worlds.tokenizer import build_tokenizer
from benchmarks.truth.worlds.world import TASKS, World, suite_items
from taxlens.core.artifacts import sha256_file
from taxlens.demo.catalogue import DATA


def write_model(model: PreTrainedModel, weights: Weights, folder: Path) -> str:
    """Write weights as a directory that `from_pretrained` reads; float16 on disk, loaded as float32.

    Args:
        model: gives config and architecture.
        weights: parameters by name.
        folder: the directory to fill.

    Returns:
        sha256 of the weights file.
    """
    written = copy.deepcopy(model)
    written.load_state_dict(weights)
    written.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    build_tokenizer().save_pretrained(folder)
    config = folder / "config.json"
    given = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(given, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return sha256_file(folder / "model.safetensors")


def read_model(folder: Path) -> PreTrainedModel:
    """An embedded model in float32, ready for arithmetic."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def write_suites(world: World, *, folder: Path = DATA / "suites") -> dict[str, str]:
    """Write every suite of the world as JSON lines; returns sha256 by task."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for task in TASKS:
        lines = [json.dumps(item, ensure_ascii=False) for item in suite_items(world, task)]
        path = folder / f"{task}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sums[task] = sha256_file(path)
    return sums


def write_truth(name: str, facts: Mapping[str, Any], *, folder: Path = DATA / "truth") -> Path:
    """Write what is known of an embedded model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path
