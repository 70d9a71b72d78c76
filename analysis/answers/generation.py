"""Generated answers in batches: greedy or sampled, up to a stop string, an end token or a budget of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import Piece, packed
from taxlens.activations.items.items import Item
from taxlens.activations.items.out_of_memory import in_halves
from taxlens.activations.items.tokens import prompt_ids
from taxlens.activations.models.lengths import length_class
from taxlens.core.artifacts import sha256_json
from taxlens.core.errors import UsageError, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.shared_work import shared

_BEFORE = 8
"""Tokens of a prompt that an answer is decoded behind: some tokenizers drop the space that a text begins with."""


@dataclass(frozen=True, slots=True)
class Said:
    """One generated answer.

    Attributes:
        text: as the model wrote it, white space at its ends included; without special tokens, and up to a stop.
        tokens: tokens that the model wrote, an end token not counted.
        ended: whether the model, or a stop, ended it; False: it was cut.
    """

    text: str
    tokens: int
    ended: bool


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Item],
    *,
    template: str = "chat",
    chat_template: str | None = None,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> list[str]:
    """The answer to each prompt, in the order given.

    Prompts of like length are run together, padded on the left, with the mask
    and the position ids that make a row's answer the same alone and in company
    (up to rounding: a tie within it may fall either way). A row that has ended
    leaves its batch.

    Args:
        model: a causal language model of transformers, in eval mode.
        tokenizer: its tokenizer.
        prompts: [n] user requests (chat) or texts to continue (plain); or items, whose conversations, rendered templates and
            special tokens are then followed.
        template: "chat" renders a request with the chat template and opens the
            answer; "plain" continues the text.
        chat_template: a template in place of the tokenizer's own.
        max_new_tokens: tokens after which an answer is cut.
        stop: texts that end an answer; they are no part of it.
        temperature: of the sampling over the whole vocabulary; 0 is greedy.
        seed: of the sampling: a prompt's sample depends on the seed and the prompt alone, not on its company.
        batch_tokens: padded tokens in one batch, answers included.
        progress: told of each batch.

    Returns:
        [n] answers without the prompt and without special tokens, white space at their ends taken off.

    Raises:
        UsageError: an unknown template, or no token to generate.
    """
    answers = [""] * len(prompts)
    said = generated(
        model, tokenizer, prompts, template=template, chat_template=chat_template, max_new_tokens=max_new_tokens, stop=stop,
        temperature=temperature, seed=seed, batch_tokens=batch_tokens, share=True, progress=progress,
    )  # fmt: skip
    for batch in said:
        for index, one in batch:
            answers[index] = one.text.strip()
    return answers


def generated(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Item],
    *,
    template: str = "chat",
    chat_template: str | None = None,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
    draws: Sequence[int] | None = None,
    batch_tokens: int = 4096,
    share: bool = False,
    progress: Progress = SILENT,
) -> Iterator[list[tuple[int, Said]]]:
    """The answers batch by batch, as they are made: (index of the prompt, answer) of each.

    Args:
        draws: [n] which sample of its prompt each is; one prompt has as many different samples as it has numbers.
        share: let the processes that take part in the stage share the batches.

    The other arguments, and what is raised, are those of `generate`.
    """
    one_of(template, ("chat", "plain"), what="template")
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1: got {max_new_tokens}.")
    if temperature < 0 or "" in stop:
        raise UsageError(f"temperature is 0 or more and no stop is empty: got {temperature}, {list(stop)!r}.")
    rows = [prompt_ids(tokenizer, prompt, template=template, chat_template=chat_template) for prompt in prompts]
    of = length_class(model)
    pieces = [Piece(len(row) + max_new_tokens, kind=of(len(row) + max_new_tokens)) for row in rows]
    ended = _Ended(tokenizer, tuple(stop))
    with progress.task("generate", total=len(rows), unit="prompts") as task:
        batches = packed(pieces, batch_tokens=batch_tokens)

        def continued(part: Sequence[int]) -> list[list[int]]:
            chosen, drawn = [rows[i] for i in part], None
            if temperature:
                numbers = [0 if draws is None else draws[i] for i in part]
                drawn = _uniforms(chosen, numbers, seed, max_new_tokens)
            return _continued(model, chosen, max_new_tokens, ended, temperature, drawn)

        def answer(number: int) -> list[list[int]]:
            done = in_halves(continued, batches[number], what="generation")
            return [ids for part in done for ids in part]

        numbers = range(len(batches))
        name = f"answers to {len(rows)} prompts ({sha256_json(rows)[:12]})"
        for number, found in zip(numbers, shared(name, numbers, answer) if share else map(answer, numbers)):
            batch = batches[number]
            yield [(i, ended.said(ids, max_new_tokens, rows[i])) for i, ids in zip(batch, found, strict=True)]
            task.advance(len(batch))


def _uniforms(rows: Sequence[Sequence[int]], draws: Sequence[int], seed: int, count: int) -> np.ndarray:
    """Numbers in 0..1 that choose a row's tokens, [rows, count]: by seed, prompt and draw alone."""
    found = np.empty((len(rows), count))
    for place, (ids, draw) in enumerate(zip(rows, draws)):
        digest = hashlib.sha256(np.asarray([seed, draw, *ids], dtype=np.int64).tobytes()).digest()
        found[place] = np.random.default_rng(int.from_bytes(digest[:8], "big")).random(count)
    return found


@dataclass(frozen=True, slots=True)
class _Ended:
    """Whether an answer holds a text that ends it, and the answer up to there."""

    tokenizer: Any
    stops: tuple[str, ...]

    def at(self, ids: list[int]) -> bool:
        """Whether a stop stands in the last tokens of an answer."""
        if not self.stops:
            return False
        last = max(len(stop.encode("utf-8")) for stop in self.stops) + 1  # a token holds a byte or more
        text = self.tokenizer.decode(ids[-last:], skip_special_tokens=True)
        return any(stop in text for stop in self.stops)

    def said(self, ids: list[int], most: int, before: list[int]) -> Said:
        """The answer that token ids are: its text before the first stop in it, as it stands after a prompt's ids."""
        head, whole = (
            self.tokenizer.decode(part, skip_special_tokens=True)
            for part in (before[-_BEFORE:], [*before[-_BEFORE:], *ids])
        )
        alone = self.tokenizer.decode(ids, skip_special_tokens=True)
        text = (
            whole[len(head) :] if whole.startswith(head) and whole.endswith(alone) else alone
        )  # with its leading space
        end = min((text.find(stop) for stop in self.stops if stop in text), default=-1)
        if end < 0:
            return Said(text, len(ids), len(ids) < most)
        tokens = len(self.tokenizer(text[:end], add_special_tokens=False).input_ids) if text[:end] else 0
        return Said(text[:end], tokens, True)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end an answer, by the model's generation config and the tokenizer."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = set(named) if isinstance(named, (list, tuple)) else {named}
    return {int(i) for i in ends | {tokenizer.eos_token_id} if i is not None}


def _cache_name(model: Any) -> str:
    """What this model calls its cache of keys and values: transformers renamed it in 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _chosen(logits: torch.Tensor, temperature: float, drawn: torch.Tensor | None) -> torch.Tensor:
    """The next token of each row, [rows]: the likeliest, or the one at which the summed probabilities pass `drawn` [rows]."""
    if drawn is None:
        return logits.argmax(-1)
    summed = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    asked = (drawn.to(summed) * summed[:, -1])[:, None]
    return torch.searchsorted(summed, asked, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def _continued(
    model: Any,
    rows: list[list[int]],
    max_new_tokens: int,
    ended: _Ended,
    temperature: float,
    drawn: np.ndarray | None,
) -> list[list[int]]:
    """Continuations of left-padded rows, each up to its end token (not included) or its stop (included).

    Args:
        drawn: [rows, max_new_tokens] numbers in 0..1 that choose the tokens; None: the likeliest.
    """
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    position = (mask.cumsum(1) - 1).clamp(min=0)
    ends, done = _ends(model, ended.tokenizer), [[] for _ in rows]
    live, cache, name = list(range(len(rows))), None, _cache_name(model)
    for step in range(max_new_tokens):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            use_cache=True,
            logits_to_keep=1,
            **{name: cache},
        )
        now = None if drawn is None else torch.as_tensor(drawn[live, step], device=out.logits.device)
        cache, token = out[name], _chosen(out.logits[:, -1], temperature, now)
        said = token.tolist()  # the one wait for the device in a token
        keep = [k for k, value in enumerate(said) if value not in ends]
        for k in keep:
            done[live[k]].append(said[k])
        keep = [k for k in keep if not ended.at(done[live[k]])]
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
