"""Long prompts: attention without its matrices, where nothing reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONG = 512
"""Tokens of a row from which attention matrices cost more than all else: they grow with its square."""


@contextmanager
def fused_attention(model: Any, longest: int) -> Iterator[bool]:
    """While open, a model that reads long rows attends by the fused kernel; yields whether it does.

    Models are loaded with eager attention, whose matrices capture and attribution by head can look into; scoring
    looks into nothing. The kernel's sums are taken in another order: scores differ by rounding. Models that cap
    their attention, or whose class has no fused kernel, stay as they are, and so do short rows, to the bit.

    Args:
        model: a Hugging Face causal language model.
        longest: tokens of the longest row that it will read.
    """
    config = model.config.get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    eager = getattr(config, "_attn_implementation", None) == "eager"
    if longest < LONG or capped or not eager or not getattr(type(model), "_supports_sdpa", False):
        yield False
        return
    model.set_attn_implementation("sdpa")
    try:
        yield True
    finally:
        model.set_attn_implementation("eager")
