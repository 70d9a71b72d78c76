"""Which chat template a model of a pair is asked in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def template_of(pair: Any, model: Any) -> str | None:
    """The model's own chat template, or the aligned model's where it has none; None where neither has."""
    own = model.chat_template or getattr(model.tokenizer, "chat_template", None)
    return own or pair.aligned.chat_template or getattr(pair.aligned.tokenizer, "chat_template", None)


def template_notes(pair: Any, templates: Sequence[str]) -> list[str]:
    """What a reader must know of the templates: one borrowed, or two that differ."""
    if "chat" not in templates:
        return []
    base, aligned = template_of(pair, pair.base), template_of(pair, pair.aligned)
    if not getattr(pair.base.tokenizer, "chat_template", None) and aligned:
        return ["base has no chat template: the aligned model's serves both."]
    if base != aligned:
        return ["base and aligned have different chat templates: each is asked in its own."]
    return []
