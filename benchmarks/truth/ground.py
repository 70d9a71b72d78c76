"""Runs of the proving ground: pairs made once and cached by what made them, results kept so that a run resumes."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights
from benchmarks.truth.worlds.embed import write_model
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.models.pair import ModelPair, load_pair
from taxlens.core.artifacts import atomic_path
from taxlens.demo import resolve, resolve_suite

CACHE = Path(".cache/truth")
PLANTS = ("plants/parts.py", "plants/plants.py", "worlds/families.py", "worlds/texts.py")
"""Code that makes plants and nulls."""
STATES = (*PLANTS, "plants/states.py")
"""Code that makes state plants."""
FINDINGS = (*PLANTS, "plants/states.py", "techniques/techniques.py", "page/findings.py")
"""Code that findings come from."""


def not_in_the_cache(name: str) -> None:
    """Refuse to compute something where only what is cached is asked for.

    Raises:
        NotReadyError: only cached results are asked for.
    """
    if _READY[0]:
        raise NotReadyError(name)


def checksum(weights: Weights) -> str:
    """Hash of weights in memory."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()[:16]


class NotReadyError(RuntimeError):
    """Something is not in the cache, and nothing is to be computed."""


_READY = [False]


def only_ready(only: bool) -> None:
    """Whether what is not cached is left out (`NotReadyError`) and not computed."""
    _READY[0] = only


def if_ready(call: Callable[[], Any]) -> Any:
    """What the call returns if all of it is in the cache, else None; nothing is computed."""
    before = _READY[0]
    _READY[0] = True
    try:
        return call()
    except NotReadyError:
        return None
    finally:
        _READY[0] = before


def fingerprint(*what: object, code: Sequence[str] = PLANTS, base: Path | None = None) -> str:
    """Hash of the base's weights (the embedded one's unless another folder is given), of the code, and of what is asked."""
    digest = hashlib.sha256(((base or resolve("demo:base")) / "model.safetensors").read_bytes())
    for name in code:
        digest.update((Path(__file__).parent / name).read_bytes())
    digest.update(repr(what).encode())
    return digest.hexdigest()[:16]


def remembered(
    name: str, make: Callable[[], Any], *what: object, code: Sequence[str] = PLANTS, base: Path | None = None
) -> Any:
    """The JSON value that `make` returns, computed once for the same base, code and arguments."""
    path = CACHE / "results" / f"{name}-{fingerprint(*what, code=code, base=base)}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    not_in_the_cache(path.name)
    value = _timed(make, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(value), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def made(
    name: str, make: Callable[[], Any], *what: object, code: Sequence[str] = PLANTS, base: Path | None = None
) -> Any:
    """The object that `make` returns (a plant, weights), trained once and kept as a torch file of tensors."""
    path = CACHE / "pairs" / f"{name}-{fingerprint(*what, code=code, base=base)}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    not_in_the_cache(path.name)
    value = _timed(make, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(value, temporary)
    return value


_SPENT = [0.0]
"""Seconds of processor that results nested in the one at hand took."""


def _timed(make: Callable[[], Any], stem: str) -> Any:
    """What `make` returns; its seconds of processor, without those of results made within it, are written down."""
    begun, before = time.process_time(), _SPENT[0]
    value = make()
    mine = time.process_time() - begun - (_SPENT[0] - before)
    _SPENT[0] += mine
    folder = CACHE / "seconds"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{stem}.txt") as temporary:
        Path(temporary).write_text(f"{mine:.2f}\n", encoding="utf-8")
    return value


def seconds_spent() -> dict[str, list[float]]:
    """Seconds of processor that each timed result took, by the name of what was made."""
    found: dict[str, list[float]] = {}
    for path in sorted((CACHE / "seconds").glob("*.txt")):
        found.setdefault(path.stem.rsplit("-", 1)[0], []).append(float(path.read_text(encoding="utf-8")))
    return found


def pair_of(model: PreTrainedModel, weights: Weights, *, name: str, base: Path | None = None) -> ModelPair:
    """The base and the given weights, written to disk and loaded as any pair is; runs side by side do not meet."""
    (CACHE / "models").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE / "models", prefix=f"{name}-") as folder:
        write_model(model, weights, Path(folder))
        return load_pair(base or resolve("demo:base"), Path(folder))


def suite_of(task: str, *, items: int | None = None) -> Suite:
    """An embedded suite, or evenly spread items of it."""
    whole = read_suite(resolve_suite(f"demo:{task}"))
    if items is None or items >= len(whole):
        return whole
    return whole.subset([round(i * (len(whole) - 1) / (items - 1)) for i in range(items)])
