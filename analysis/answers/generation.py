"""Greedy answers in batches."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch

from taxlens.activations.items.batches import Piece, packed
from taxlens.activations.items.chat import render_chat
from taxlens.core.errors import UsageError, one_of
from taxlens.core.progress import SILENT, Progress


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    template: str = "chat",
    chat_template: str | None = None,
    max_new_tokens: int = 64,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> list[str]:
    """The greedy answer to each prompt, in the order given.

    Prompts of like length are run together, padded on the left, with the mask
    and the position ids that make a row's answer the same alone and in company
    (up to rounding: a tie within it may fall either way). A row that has ended
    leaves its batch.

    Args:
        model: a causal language model of transformers, in eval mode.
        tokenizer: its tokenizer.
        prompts: [n] user requests (chat) or texts to continue (plain).
        template: "chat" renders a request with the chat template and opens the
            answer; "plain" continues the text.
        chat_template: a template in place of the tokenizer's own.
        max_new_tokens: tokens after which an answer is cut.
        batch_tokens: padded tokens in one batch, answers included.
        progress: told of each batch.

    Returns:
        [n] answers without the prompt and without special tokens.

    Raises:
        UsageError: an unknown template, or no token to generate.
    """
    one_of(template, ("chat", "plain"), what="template")
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1: got {max_new_tokens}.")
    rows = [_encode(tokenizer, prompt, template, chat_template) for prompt in prompts]
    answers = [""] * len(rows)
    with progress.task("generate", total=len(rows), unit="prompts") as task:
        for batch in packed([Piece(len(row) + max_new_tokens) for row in rows], batch_tokens=batch_tokens):
            for index, ids in zip(batch, _greedy(model, tokenizer, [rows[i] for i in batch], max_new_tokens)):
                answers[index] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            task.advance(len(batch))
    return answers


def _encode(tokenizer: Any, prompt: str, template: str, chat_template: str | None) -> list[int]:
    """The ids of one prompt; a rendered template already holds its special tokens."""
    if template == "plain":
        return tokenizer(prompt).input_ids
    text = render_chat(tokenizer, prompt, chat_template=chat_template)
    return tokenizer(text, add_special_tokens=False).input_ids


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end an answer, by the model's generation config and the tokenizer."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = set(named) if isinstance(named, (list, tuple)) else {named}
    return {int(i) for i in ends | {tokenizer.eos_token_id} if i is not None}


def _cache_name(model: Any) -> str:
    """What this model calls its cache of keys and values: transformers renamed it in 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


@torch.no_grad()
def _greedy(model: Any, tokenizer: Any, rows: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Greedy continuations of left-padded rows, each up to its end token (not included)."""
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    position = (mask.cumsum(1) - 1).clamp(min=0)
    ends, done = _ends(model, tokenizer), [[] for _ in rows]
    live, cache, name = list(range(len(rows))), None, _cache_name(model)
    for _ in range(max_new_tokens):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            use_cache=True,
            logits_to_keep=1,
            **{name: cache},
        )
        cache, token = out[name], out.logits[:, -1].argmax(-1)
        said = token.tolist()  # the one wait for the device in a token
        keep = [k for k, value in enumerate(said) if value not in ends]
        for k in keep:
            done[live[k]].append(said[k])
        if not keep:
            break
        if len(keep) < len(live):
            index = torch.tensor(keep)
            cache.batch_select_indices(index)  # on the CPU: the cache may lie over several devices
            index = index.to(ids.device, non_blocking=True)
            live, mask, token, position = [live[k] for k in keep], mask[index], token[index], position[index]
        ids, position = token[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return done
