"""Token ids: those that a model has no embedding for, and added tokens that two models have at other ids."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from taxlens.core.errors import PairMismatchError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.tokens import Row
    from taxlens.activations.models.loading import LoadedModel


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


def with_ids_of(base: LoadedModel, aligned: LoadedModel) -> LoadedModel:
    """Return the base with its added tokens at the ids that aligned has them at, where both have the same ones.

    The rows of its embedding and output head change places, on memory of their own, and it is asked by aligned's
    tokenizer, which does the same but for the ids. What it computes for a text stays what it was.

    Args:
        base, aligned: two loaded models; anything else that differs between their vocabularies is left to `compare`.
    """
    one, two = base.tokenizer.get_vocab(), aligned.tokenizer.get_vocab()
    moved = sorted(token for token in one.keys() & two.keys() if one[token] != two[token])
    rows = embedding_rows(base.model)
    if not moved or one.keys() != two.keys() or not _same_but_for_ids(base.tokenizer, aligned.tokenizer, moved):
        return base
    if max(max(one[token], two[token]) for token in moved) >= rows:
        return base
    order = torch.arange(rows)
    for token in moved:
        order[two[token]] = one[token]
    note = f"{len(moved)} added tokens stand at other ids in aligned (first {moved[0]!r}): base's rows are put in that order"
    return dataclasses.replace(
        base,
        model=_reordered(base.model, order, {one[token]: two[token] for token in moved}),
        tokenizer=aligned.tokenizer,
        chat_template=base.chat_template,
        notes=(*base.notes, note),
    )


def _same_but_for_ids(one: Any, two: Any, moved: Sequence[str]) -> bool:
    """Whether two tokenizers differ in nothing but the ids of added tokens."""
    if not set(moved) <= one.get_added_vocab().keys() & two.get_added_vocab().keys():
        return False
    rules = []
    for tokenizer in (one, two):
        found = json.loads(tokenizer.backend_tokenizer.to_str())
        found["added_tokens"] = sorted(
            (token | {"id": None} for token in found["added_tokens"]), key=lambda token: token["content"]
        )
        vocabulary = found["model"].get("vocab")
        if isinstance(vocabulary, dict):
            found["model"]["vocab"] = {k: v for k, v in vocabulary.items() if k not in moved}
        found["padding"] = found["truncation"] = None
        rules.append(_without_ids(found))
    return rules[0] == rules[1]


def _without_ids(found: Any) -> Any:
    """A tokenizer's definition without the ids of special tokens."""
    if isinstance(found, dict):
        numbers = {"ids"} | ({"id"} if isinstance(found.get("id"), int) else set())
        return {key: _without_ids(value) for key, value in found.items() if key not in numbers}
    return [_without_ids(value) for value in found] if isinstance(found, list) else found


def _reordered(model: Any, order: torch.Tensor, places: dict[int, int]) -> Any:
    """A model of its own tree whose vocabulary is in another order; the rest is shared."""
    from taxlens.activations.models.loading import copy_sharing

    twin = copy_sharing(model)
    embed, head = twin.get_input_embeddings(), twin.get_output_embeddings()
    tied = head is not None and head.weight is embed.weight
    for module in (embed,) if head is None else (embed, head):
        for name in ("weight", "bias"):
            held = getattr(module, name, None)
            if held is not None:
                moved = held.detach()[order.to(held.device)].clone()
                setattr(module, name, torch.nn.Parameter(moved, requires_grad=False))
    if tied:
        head.weight = embed.weight
    for settings in (twin.config.get_text_config(), getattr(twin, "generation_config", None)):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            held = getattr(settings, key, None)
            if held is not None:
                ids = [places.get(i, i) for i in (held if isinstance(held, list) else [held])]
                setattr(settings, key, ids if isinstance(held, list) else ids[0])
    return twin
