"""Generated answers in batches: greedy or sampled, up to a stop string, an end token or a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch

from taxlens.activations.items.batches import Piece, packed
from taxlens.activations.items.chat import render_chat
from taxlens.activations.items.items import Item
from taxlens.activations.items.messages import plain_text
from taxlens.activations.items.out_of_memory import in_halves
from taxlens.activations.items.tokens import adds_special
from taxlens.core.artifacts import sha256_json
from taxlens.core.errors import UsageError, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.shared_work import shared


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
        seed: of the sampling; the same seed and batches give the same answers.
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
    if temperature < 0 or "" in stop:
        raise UsageError(f"temperature is 0 or more and no stop is empty: got {temperature}, {list(stop)!r}.")
    rows = [_encode(tokenizer, prompt, template, chat_template) for prompt in prompts]
    drawn = torch.Generator(device=model.device).manual_seed(seed) if temperature else None
    ended = _Ended(tokenizer, tuple(stop))
    answers = [""] * len(rows)
    with progress.task("generate", total=len(rows), unit="prompts") as task:
        batches = packed([Piece(len(row) + max_new_tokens) for row in rows], batch_tokens=batch_tokens)

        def answer(number: int) -> list[list[int]]:
            work = partial(_continued_rows, model, max_new_tokens, ended, temperature, drawn)
            done = in_halves(work, [rows[i] for i in batches[number]], what="generation")
            return [ids for part in done for ids in part]

        numbers = range(len(batches))  # sampled answers follow from the draws before: they stay in one process
        for number, found in zip(
            numbers, map(answer, numbers) if temperature else shared(_name(rows), numbers, answer)
        ):
            for index, ids in zip(batches[number], found, strict=True):
                answers[index] = ended.cut(tokenizer.decode(ids, skip_special_tokens=True)).strip()
            task.advance(len(batches[number]))
    return answers


def _name(rows: Sequence[Sequence[int]]) -> str:
    return f"answers to {len(rows)} prompts ({sha256_json(list(map(list, rows)))[:12]})"


def _continued_rows(
    model: Any, most: int, ended: _Ended, temperature: float, drawn: torch.Generator | None, rows: Sequence[list[int]]
) -> list[list[int]]:
    """Continuations of a batch; where memory runs out the draws begin again where they did."""
    before = None if drawn is None else drawn.get_state()
    try:
        return _continued(model, list(rows), most, ended, temperature, drawn)
    except BaseException:
        if drawn is not None and before is not None:
            drawn.set_state(before)
        raise


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

    def cut(self, text: str) -> str:
        """The text before the first stop in it."""
        return text[: min((text.find(stop) for stop in self.stops if stop in text), default=len(text))]


def _encode(tokenizer: Any, prompt: str | Item, template: str, chat_template: str | None) -> list[int]:
    """The ids of one prompt; a rendered template already holds its special tokens."""
    item = prompt if isinstance(prompt, Item) else Item("", "", prompt=prompt)
    asked = item.template(template)
    content = item.content(asked)
    if asked == "plain":
        text = content if isinstance(content, str) else plain_text(content)
    else:
        text = render_chat(tokenizer, content, chat_template=chat_template)
    return tokenizer(text, add_special_tokens=adds_special(tokenizer, text, asked, item.special_tokens)).input_ids


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end an answer, by the model's generation config and the tokenizer."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = set(named) if isinstance(named, (list, tuple)) else {named}
    return {int(i) for i in ends | {tokenizer.eos_token_id} if i is not None}


def _cache_name(model: Any) -> str:
    """What this model calls its cache of keys and values: transformers renamed it in 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _chosen(logits: torch.Tensor, temperature: float, drawn: torch.Generator | None) -> torch.Tensor:
    """The next token of each row, [rows]: the likeliest, or drawn."""
    if drawn is None:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits.float() / temperature, -1), 1, generator=drawn)[:, 0]


@torch.no_grad()
def _continued(
    model: Any,
    rows: list[list[int]],
    max_new_tokens: int,
    ended: _Ended,
    temperature: float,
    drawn: torch.Generator | None,
) -> list[list[int]]:
    """Continuations of left-padded rows, each up to its end token (not included) or its stop (included)."""
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    position = (mask.cumsum(1) - 1).clamp(min=0)
    ends, done = _ends(model, ended.tokenizer), [[] for _ in rows]
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
        cache, token = out[name], _chosen(out.logits[:, -1], temperature, drawn)
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
