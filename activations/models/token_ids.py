"""Token ids that a model has no embedding for: told at load, refused wherever they would be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from taxlens.core.errors import PairMismatchError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.tokens import Row


_FIX = "use templates and items of tokens that both models know, or the checkpoint with resized embeddings."


def embedding_rows(model: Any) -> int:
    """Number of token ids that a model (a Hugging Face one, or a loaded one) has an embedding for."""
    network = model if isinstance(model, torch.nn.Module) else model.model
    return int(network.get_input_embeddings().weight.shape[0])


def ids_beyond(tokenizer: Any, model: Any, name: str) -> str:
    """A note where a tokenizer has ids that the model has no embedding for; blank otherwise."""
    rows = embedding_rows(model)
    over = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if not over:
        return ""
    return (
        f"the tokenizer of {name} has {len(over)} ids past the {rows} rows of the embedding (first {over[0][1]!r}, "
        f"{over[0][0]}): text that needs them is refused"
    )


def check_ids(rows: Sequence[Row], tokenizer: Any, known: int | None) -> None:
    """Refuse rows with an id that a model has no embedding and no logit for, be it only the last token of an answer.

    Args:
        rows: what a model is to read and to predict.
        tokenizer: that they are of.
        known: rows of the model's embedding; None: not looked at.

    Raises:
        PairMismatchError: naming the token.
    """
    largest = max((max(row.ids) for row in rows if row.ids), default=-1)
    if known is not None and largest >= known:
        what: list[tuple[str, object]] = [
            ("token", repr(tokenizer.convert_ids_to_tokens(largest))),
            ("token id", largest),
            ("embedding rows", known),
        ]
        raise PairMismatchError(explain("a model has no embedding for a token.", what, _FIX))


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
        raise PairMismatchError(explain("a model has no embedding for a token.", what, _FIX))
