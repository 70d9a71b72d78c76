"""What the techniques are called, and where their adapters lie."""

from __future__ import annotations

from pathlib import Path

from benchmarks.real.fetch import CACHE, ROOT
from benchmarks.real.refusal_lora import place_of

TECHNIQUES = ("refusal", "refusal-full", "preference", "policy", "constitutional", "adversarial", "chain")
SHIPPED = ROOT / "configs" / "techniques"
KEPT = CACHE / "techniques"


def folder(name: str, *, strong: bool = False, seed: int = 0) -> Path:
    """Where an adapter lies: one setting of a technique is shipped, the rest is made in the cache.

    The refusal adapters are those of `benchmarks.real.refusal_lora`; their strong setting is the one without retention.
    """
    if name == "refusal":
        return place_of("extreme" if strong else f"selective-{seed}")
    if strong or seed or name in {"refusal-full", "policy"}:
        return KEPT / f"{name}{'-strong' if strong else ''}-{seed}"
    return SHIPPED / name
