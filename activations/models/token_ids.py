"""Token ids that a model has no embedding for: told at load, refused wherever they would be read."""

from __future__ import annotations

from typing import Any

import torch

from taxlens.core.errors import PairMismatchError, explain


def ids_beyond(tokenizer: Any, model: Any, name: str) -> str:
    """A note where a tokenizer has ids that the model has no embedding for; blank otherwise."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    over = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if not over:
        return ""
    return (
        f"the tokenizer of {name} has {len(over)} ids past the {rows} rows of the embedding (first {over[0][1]!r}, "
        f"{over[0][0]}): text that needs them is refused"
    )


def refuse_unknown_ids(model: Any) -> None:
    """Let a model's embedding refuse ids past its rows, in words, in every forward pass of any stage."""
    embedding = model.get_input_embeddings()
    if _refuse not in embedding._forward_pre_hooks.values():
        embedding.register_forward_pre_hook(_refuse)


def _refuse(module: Any, args: tuple[Any, ...]) -> None:
    ids = args[0]
    if not isinstance(ids, torch.Tensor) or not ids.numel() or ids.is_meta:
        return
    largest, rows = int(ids.max()), int(module.weight.shape[0])
    if largest >= rows:
        what: list[tuple[str, object]] = [("token id", largest), ("embedding rows", rows)]
        fix = "use templates and items of tokens that both models know, or the checkpoint with resized embeddings."
        raise PairMismatchError(explain("a model has no embedding for a token.", what, fix))
