"""Runs of the proving ground: pairs made once and cached by what made them, results kept so that a run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.truth.embed import write_model
from benchmarks.truth.parts import Weights
from taxlens.activations.items import Suite, read_suite
from taxlens.activations.pair import ModelPair, load_pair
from taxlens.core.artifacts import atomic_path
from taxlens.demo import resolve, resolve_suite

CACHE = Path(".cache/truth")
CODE = ("parts.py", "plants.py", "families.py", "states.py", "techniques.py", "texts.py")


def fingerprint(*what: object) -> str:
    """Hash of the base's weights, of the code that makes pairs, and of what is asked for."""
    digest = hashlib.sha256((resolve("demo:base") / "model.safetensors").read_bytes())
    for name in CODE:
        digest.update((Path(__file__).parent / name).read_bytes())
    digest.update(repr(what).encode())
    return digest.hexdigest()[:16]


def remembered(name: str, make: Callable[[], Any], *what: object) -> Any:
    """The JSON value that `make` returns, computed once for the same base, code and arguments."""
    path = CACHE / "results" / f"{name}-{fingerprint(*what)}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    value = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(value), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def made(name: str, make: Callable[[], Any], *what: object) -> Any:
    """The object that `make` returns (a plant, weights), trained once and kept as a torch file of tensors."""
    path = CACHE / "pairs" / f"{name}-{fingerprint(*what)}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    value = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(value, temporary)
    return value


def pair_of(model: PreTrainedModel, weights: Weights, *, name: str) -> ModelPair:
    """The base and the given weights, written to disk and loaded as any pair is."""
    folder = CACHE / "models" / name
    write_model(model, weights, folder)
    return load_pair(resolve("demo:base"), folder)


def suite_of(task: str, *, items: int | None = None) -> Suite:
    """An embedded suite, or evenly spread items of it."""
    whole = read_suite(resolve_suite(f"demo:{task}"))
    if items is None or items >= len(whole):
        return whole
    return whole.subset([round(i * (len(whole) - 1) / (items - 1)) for i in range(items)])
