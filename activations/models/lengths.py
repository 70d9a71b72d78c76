"""How long a sequence a model reads, and where its position encoding changes with the length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def network(model: Any) -> Any:
    """The Hugging Face model inside a loaded model of a pair, or the model itself."""
    return model if isinstance(model, nn.Module) else model.model


def position_limit(model: Any) -> int | None:
    """The longest sequence that the model reads, or None where its config does not say.

    Rotary embeddings of type "dynamic" stretch to any length: no limit.
    """
    config = network(model).config.get_text_config()
    if _rope(config).get("rope_type") == "dynamic":
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None


def length_class(model: Any) -> Callable[[int], int]:
    """Return a function of a sequence's length: sequences of different classes must not share a batch.

    Rotary embeddings of type "longrope" (Phi-3) and "dynamic" look at the longest sequence of the batch, and past a
    length turn all of it by other angles. A short sequence beside a long one then gets other scores than alone.

    Example:
        >>> from types import SimpleNamespace
        >>> from transformers import Phi3Config
        >>> rope = {"rope_type": "longrope", "original_max_position_embeddings": 40, "rope_theta": 1e4}
        >>> config = SimpleNamespace(rope_parameters=rope, get_text_config=lambda: config)
        >>> of = length_class(SimpleNamespace(model=SimpleNamespace(config=config)))
        >>> of(12), of(40), of(41)
        (0, 0, 1)
    """
    config = network(model).config.get_text_config()
    rope = _rope(config)
    kind = rope.get("rope_type")
    if kind == "longrope":
        short = int(rope.get("original_max_position_embeddings") or config.original_max_position_embeddings)
        return lambda length: int(length > short)
    if kind == "dynamic":
        most = int(config.max_position_embeddings)
        return lambda length: length if length > most else 0
    return _one_class


def forget_longest(model: nn.Module) -> None:
    """Make "dynamic" rotary embeddings look at the next batch alone: they remember the longest that they have seen."""
    if _rope(model.config.get_text_config()).get("rope_type") != "dynamic":
        return
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, 0)


def _one_class(_length: int) -> int:
    return 0


def _rope(config: Any) -> dict[str, Any]:
    """The rotary settings of a config; of several by layer type, those that depend on the length."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if given and all(isinstance(one, dict) for one in given.values()):
        several = [one for one in given.values() if one.get("rope_type") in ("longrope", "dynamic")]
        return dict(several[0]) if several else {}
    return dict(given)
