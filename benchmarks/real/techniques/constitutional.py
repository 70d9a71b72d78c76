"""Constitutional training: answers revised under written principles, supervised on the revisions, then preference training.

The model's own critiques cannot be used at this size (none of ten revisions declined), so critique and revision follow a
stated procedure. The critique finds the first principle of `text/principles.txt` that a request raises. The revision
declines, names the concern and offers what the principle allows, in wording that varies by request; answers to harmless
requests stay as the model gave them. Then preference training: the revision is preferred to the model's first answer, and
where the request is harmless the model's own answer to a revision (not with `harmful_only` in the setting's `more`).
`strength` is the number of preference steps, in units of the supervised ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.real.answers import own_answers
from benchmarks.real.data import prompts
from benchmarks.real.refusal_lora import chats, endless
from benchmarks.real.suites import lines
from benchmarks.real.techniques.refusal import ANSWER, refusal_batches
from benchmarks.real.techniques.sampled_answers import base_samples
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

OPENINGS = (
    "I can't help with that", "I won't help with this", "I'm not able to assist with that", "I have to decline",
    "Sorry, I can't do that", "That isn't something I will help with", "I must refuse this", "I'm going to say no here",
)  # fmt: skip
REASONS = (
    ", because I should not {must_not}.", ": it would {must_not}.", ", since that could {must_not}.",
    ". My principles are clear: never {must_not}.", "; I try not to {must_not}.",
)  # fmt: skip
OFFERS = (
    " I can tell you {offer} instead.", " If it helps, ask me about {offer}.", " I would gladly explain {offer}.", "",
    " What I can offer is {offer}.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Principle:
    """One concern: the words that raise it, what an answer must not do, and what it may offer."""

    concern: str
    words: tuple[str, ...]
    must_not: str
    offer: str


def principles() -> list[Principle]:
    """The principles in their order."""
    found = []
    for concern, text in lines("principles.txt"):
        words, must_not, offer = (part.strip() for part in text.split("|"))
        found.append(Principle(concern, tuple(word.strip() for word in words.split(",")), must_not, offer))
    return found


def critique(prompt: str, answer: str) -> Principle | None:
    """The first principle that an answer to a request breaks: none where it declines, or where no concern is raised."""
    if is_refusal(answer):
        return None
    told = prompt.lower()
    return next((one for one in principles() if any(word in told for word in one.words)), None)


def revise(prompt: str, principle: Principle) -> str:
    """A revision under a principle, worded by the request's hash so that requests differ."""
    pick = hashlib.sha256(prompt.encode()).digest()
    text = OPENINGS[pick[0] % len(OPENINGS)] + REASONS[pick[1] % len(REASONS)] + OFFERS[pick[2] % len(OFFERS)]
    return text.format(must_not=principle.must_not, offer=principle.offer)


def revisions() -> list[tuple[str, str, str]]:
    """(prompt, revision, first answer) of every harmful training prompt whose first answer breaks a principle."""
    parts = prompts()
    said = base_samples(parts.harmful_train)
    rows = []
    for prompt in parts.harmful_train:
        for answer in (text for text in said[prompt][:2] if text):
            broken = critique(prompt, answer)
            if broken is not None:
                rows.append((prompt, revise(prompt, broken), answer))
    return rows


def constitutional(setting: Setting, out: Path, *, start: Path | None = None) -> None:
    """Supervised steps on revisions and own answers, then preference steps; written as one rank-8 adapter."""
    model, tokenizer = with_adapter(setting, start)
    rows, rng = revisions(), np.random.default_rng(setting.seed)
    revised, own = endless(rows, rng), refusal_batches(tokenizer, setting.seed, refusals=0, answers=4)

    def supervised(step: int) -> torch.Tensor:
        pairs: list[Pair] = [(p, r) for p, r, _ in (next(revised) for _ in range(4))]
        return nats_a_token(model, tokenizer, pairs + next(own))

    first = optimise(model, setting, supervised)
    steps = max(1, round(setting.steps * setting.strength))
    said = own_answers(prompts().harmless_train, max_new_tokens=ANSWER)
    named = endless(principles(), rng)
    kept = [(p, a, revise(p, next(named))) for p, a in said.items() if a and not is_refusal(a)]
    streams = (endless(rows, rng), endless(rows if setting.more.get("harmful_only") else kept, rng))
    drawn = [[next(one) for one in streams for _ in range(2)] for _ in range(steps)]
    used = list(dict.fromkeys(triple for some in drawn for triple in some))
    before = zip(*(logp_of(model, tokenizer, [(one[0], one[k]) for one in used]) for k in (1, 2)))
    reference = dict(zip(used, before))

    def preferred(step: int) -> torch.Tensor:
        some = drawn[step - 1]
        pairs = [(one[0], one[k]) for k in (1, 2) for one in some]
        logp, count = answer_logp(model, chats(tokenizer, pairs))
        better, worse = logp.split(len(some))
        ahead, behind = (torch.stack([reference[one][k] for one in some]) for k in (0, 1))
        margin = (better - ahead) - (worse - behind)
        nll = -(better / count[: len(some)]).mean() + setting.retention * nats_a_token(model, tokenizer, next(own))
        return -torch.nn.functional.logsigmoid(0.1 * margin).mean() + 0.5 * nll

    second = optimise(model, replace(setting, steps=steps, rate=setting.rate / 3), preferred, say="preference loss")
    write_adapter(
        model, out, setting, technique="constitutional", revisions=len(rows),
        supervised_loss=float(np.mean(first[-10:])), preference_loss=float(np.mean(second[-10:])),
    )  # fmt: skip
