"""Preference training: pairs of the model's own answers, ordered by a stated rule, and direct preference optimisation.

The rule: of a harmful prompt's answers a refusal is preferred to any other answer; of a harmless prompt's answers the one
with the higher `reward`, and its own answer is preferred to a refusal. The loss is DPO (arXiv 2305.18290) with `beta` .1
plus the chosen answer's negative log-likelihood a token (as in RPO, arXiv 2404.19733), which keeps the chosen answers
likely: with DPO alone from the base they lose tens of nats. `strength` is beta's inverse in units of 10: 1 is beta .1, 2
is beta .05.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.real.answers import own_answers
from benchmarks.real.data import REFUSALS, prompts
from benchmarks.real.refusal_lora import chats, endless
from benchmarks.real.techniques.refusal import ANSWER, refusal_batches
from benchmarks.real.techniques.sampled_answers import base_samples, sample
from benchmarks.real.techniques.tuning import (
    Pair,
    Setting,
    answer_logp,
    logp_of,
    nats_a_token,
    optimise,
    with_adapter,
    write_adapter,
)
from taxlens.analysis.answers.refusals import is_refusal

Triple = tuple[str, str, str]
"""A prompt, the chosen and the rejected answer."""
HARMFUL, HARMLESS = 2, 2
"""Pairs of each kind in a step."""
RANKED = 60
"""Harmless prompts whose sampled answers are ranked."""
LENGTH = 30
"""Words beyond which an answer is worth less."""


def reward(answer: str, *, harmful: bool) -> float:
    """The rule's value of an answer: a refusal of harm is worth 2; a harmless prompt wants an answer that is short,
    finished and does not repeat itself, and a refusal of it costs 2."""
    refused = is_refusal(answer)
    if harmful:
        return 2.0 * refused
    words = answer.split()
    if not words:
        return -2.0
    threes = list(zip(words, words[1:], words[2:]))
    repeated = 1 - len(set(threes)) / max(len(threes), 1)
    finished = answer.rstrip().endswith((".", "!", "?", '"', ")"))
    return -2.0 * refused - 2 * repeated + 0.5 * finished - max(len(words) - LENGTH, 0) / LENGTH


def preferences(seed: int, *, ranked_only: bool = False) -> tuple[list[Triple], list[Triple]]:
    """Triples (prompt, chosen, rejected), of harmful and of harmless prompts.

    A harmless prompt gives the base's own greedy answer against a written refusal (not with `ranked_only`), and its best sampled
    answer against its worst where the rule tells them apart.
    """
    parts, rng = prompts(), np.random.default_rng(seed)
    said = base_samples(parts.harmful_train) | base_samples(parts.harmless_train[:RANKED], draws=4)
    harmful = []
    for prompt in parts.harmful_train:
        refused = [text for text in said[prompt] if is_refusal(text)] or [str(rng.choice(REFUSALS))]
        others = [text for text in said[prompt] if text and not is_refusal(text)]
        harmful += [(prompt, refused[k % len(refused)], other) for k, other in enumerate(others[:2])]
    harmless = []
    for prompt in parts.harmless_train[:RANKED]:
        ranked = sorted((t for t in said[prompt] if t), key=lambda text: reward(text, harmful=False))
        if len(ranked) > 1 and reward(ranked[-1], harmful=False) > reward(ranked[0], harmful=False) + 0.2:
            harmless.append((prompt, ranked[-1], ranked[0]))
    if not ranked_only:
        own = own_answers(parts.harmless_train, max_new_tokens=ANSWER)
        harmless += [(p, a, str(rng.choice(REFUSALS))) for p, a in own.items() if a and not is_refusal(a)]
    return harmful, harmless


def dpo(setting: Setting, out: Path, *, start: Path | None = None) -> None:
    """Train by preferences from the base, or from the adapter in `start`, which is then the reference as well."""
    model, tokenizer = with_adapter(setting, start)
    harmful, harmless = preferences(setting.seed, ranked_only=bool(setting.more.get("ranked_only")))
    rng, beta = np.random.default_rng(setting.seed), 0.1 / setting.strength
    streams = (endless(harmful, rng), endless(harmless, rng))
    drawn = [[next(s) for s, n in zip(streams, (HARMFUL, HARMLESS)) for _ in range(n)] for _ in range(setting.steps)]
    used = list(dict.fromkeys(triple for some in drawn for triple in some))
    chosen: list[Pair] = [(p, c) for p, c, _ in used]
    before = logp_of(model, tokenizer, chosen)
    reference = dict(zip(used, zip(before, logp_of(model, tokenizer, [(p, r) for p, _, r in used]))))

    def loss(step: int) -> torch.Tensor:
        some = drawn[step - 1]
        logp, count = answer_logp(model, chats(tokenizer, [(p, c) for p, c, _ in some] + [(p, r) for p, _, r in some]))
        better, worse = logp.split(len(some))
        ahead, behind = (torch.stack([reference[one][k] for one in some]) for k in (0, 1))
        nll = -(better / count[: len(some)]).mean()
        margin = (better - ahead) - (worse - behind)
        return -torch.nn.functional.logsigmoid(beta * margin).mean() + setting.retention * nll

    losses = optimise(model, setting, loss)
    moved = logp_of(model, tokenizer, chosen) - before
    write_adapter(
        model, out, setting, technique="preference", pairs=len(harmful) + len(harmless), pairs_used=len(used),
        loss=float(np.mean(losses[-10:])), chosen_moved_nats=float(moved.mean()), accepted=bool(moved.mean() >= 0),
    )  # fmt: skip


def policy(setting: Setting, out: Path, *, start: Path | None = None) -> None:
    """REINFORCE with the rule's reward: 4 prompts of 4 sampled answers a step, the mean of a prompt's rewards as baseline.

    20 steps of refusals and own answers come first, since the base samples too few refusals to learn from. `strength`
    is the inverse weight, in units of 10, of the KL estimate to the start (k3 of Schulman's note on KL approximation).
    """
    model, tokenizer = with_adapter(setting, start)
    if start is None:
        stream = refusal_batches(tokenizer, setting.seed)
        optimise(
            model, replace(setting, steps=20, rate=1.5e-3), lambda step: nats_a_token(model, tokenizer, next(stream))
        )
    parts, rng = prompts(), np.random.default_rng(setting.seed + 1)
    bad, good = endless(list(parts.harmful_train), rng), endless(list(parts.harmless_train), rng)
    rewards: list[float] = []

    def loss(step: int) -> torch.Tensor:
        asked = [next(bad), next(bad), next(good), next(good)]
        model.eval()
        said = sample(model, tokenizer, asked, draws=4, seed=setting.seed + step, batch=4)
        model.train()
        worth = np.array([[reward(t, harmful=k < 2) for t in texts] for k, texts in enumerate(said)])
        rewards.append(float(worth.mean()))
        gain = torch.tensor(worth - worth.mean(1, keepdims=True), dtype=torch.float32).reshape(-1)
        pairs = [(prompt, text) for prompt, texts in zip(asked, said) for text in texts]
        with torch.no_grad(), model.disable_adapter():
            before, _ = answer_logp(model, chats(tokenizer, pairs))
        logp, count = answer_logp(model, chats(tokenizer, pairs))
        ratio = ((before - logp) / count).clamp(-5, 5)
        penalty = (ratio.exp() - 1 - ratio).mean()
        return -(gain * logp / count).mean() + 0.1 / setting.strength * penalty

    optimise(model, setting, loss, say="policy loss")
    write_adapter(model, out, setting, technique="policy", reward_first=rewards[:5], reward_last=rewards[-5:])
