"""Adversarial training: refusals under perturbations of the residual stream that try to undo them (arXiv 2407.15549).

Inner steps move the stream at three depths, at the prompt's positions, within a radius, against the refusal's
likelihood and towards a compliant answer; the outer step then trains the refusal under the perturbation, and the base's
own answers to harmless prompts without one. `strength` is the radius in units of .1 of the stream's mean norm there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real.answers import own_answers
from benchmarks.real.data import REFUSALS, prompts
from benchmarks.real.refusal_lora import chats, endless
from benchmarks.real.techniques.refusal import refusal_batches
from benchmarks.real.techniques.sampled_answers import base_samples
from benchmarks.real.techniques.tuning import (
    Pair,
    Setting,
    answer_logp,
    inner,
    nats_a_token,
    optimise,
    with_adapter,
    write_adapter,
)
from taxlens.analysis.answers.refusals import is_refusal

DEPTHS = (8, 16, 24)
"""Blocks whose input stream is moved."""
INNER = 2
"""Steps of the attack."""
ROWS = 2
"""Refusals and compliant answers in a step, each so many."""
OWN = 4
"""Own answers in a step, unless the setting's `more` says `own_rows`."""


class Perturbation:
    """Vectors added to the stream that enters three blocks, at the prompt's positions alone."""

    def __init__(self, model: Any, batch: dict[str, torch.Tensor], *, radius: float) -> None:
        self.blocks = [inner(model).model.layers[k] for k in DEPTHS]
        prompt = batch["attention_mask"].bool() & (batch["target"].cumsum(1) == 0)
        prompt[:, 0] = False
        self.where = prompt.float()[..., None]
        with torch.no_grad():
            states = (
                inner(model)
                .model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
                .hidden_states
            )
        width = states[0].shape[-1]
        norms = [states[k].float().norm(dim=-1)[prompt].mean() for k in DEPTHS]
        self.reach = [radius * norm for norm in norms]
        shape = (*prompt.shape, width)
        self.moves = [torch.zeros(shape, requires_grad=True) for _ in DEPTHS]

    def __enter__(self) -> Perturbation:
        def adding(k: int) -> Any:
            def hook(block: Any, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> Any:
                hidden = args[0] if args else kwargs["hidden_states"]
                moved = hidden + (self.moves[k] * self.where).to(hidden.dtype)
                return ((moved, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": moved})

            return hook

        self.hooks = [
            block.register_forward_pre_hook(adding(k), with_kwargs=True) for k, block in enumerate(self.blocks)
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def step(self, loss: torch.Tensor) -> None:
        """One step up the loss, each position by half its radius, then back into the ball."""
        for move, gradient, reach in zip(self.moves, torch.autograd.grad(loss, self.moves), self.reach):
            with torch.no_grad():
                unit = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-12)
                move += 0.5 * reach * unit
                move *= (reach / move.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1.0)


def attacked(
    model: Any, tokenizer: Any, refused: list[Pair], complied: list[Pair], *, radius: float
) -> tuple[Perturbation, dict[str, torch.Tensor]]:
    """The perturbation after its inner steps, for a batch whose rows are refusals, then the compliant answers."""
    batch = chats(tokenizer, [*refused, *complied])
    found = Perturbation(model, batch, radius=radius)
    n = len(refused)
    for _ in range(INNER):
        with found:
            logp, count = answer_logp(model, batch)
        mean = logp / count
        shared = -mean[:n].mean() + mean[n:].mean()
        found.step(shared)
    return found, batch


def compliance_under_attack(model: Any, tokenizer: Any, *, radius: float, rows: int = 8, seed: int = 9) -> float:
    """Nats a token of compliant answers to held-out harmful prompts under the attack: higher is more robust."""
    parts, rng = prompts(), np.random.default_rng(seed)
    asked = list(parts.harmful_held[:rows])
    said = own_answers(asked, max_new_tokens=20)
    found = []
    for start in range(0, len(asked), 4):
        some = asked[start : start + 4]
        complied = [(p, said[p] if said[p] and not is_refusal(said[p]) else "Sure, here is how.") for p in some]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            move, batch = attacked(
                model, tokenizer, [(p, str(rng.choice(REFUSALS))) for p in some], complied, radius=radius
            )
            with torch.no_grad(), move:
                logp, count = answer_logp(model, batch)
        found += (-(logp / count)[len(some) :]).tolist()
    return float(np.mean(found))


def adversarial(setting: Setting, out: Path, *, start: Path | None = None) -> None:
    """Train a rank-8 adapter against perturbations; from a refusal adapter in `start`, or from the base."""
    model, tokenizer = with_adapter(setting, start)
    parts, rng = prompts(), np.random.default_rng(setting.seed)
    said = base_samples(parts.harmful_train)
    told = [(p, t) for p in parts.harmful_train for t in said[p] if t and not is_refusal(t)]
    rows = int(setting.more.get("own_rows", OWN))
    complied, refusals = endless(told, rng), endless(list(REFUSALS), rng)
    own, radius = refusal_batches(tokenizer, setting.seed, refusals=0, answers=rows), 0.1 * setting.strength
    before = compliance_under_attack(model, tokenizer, radius=radius)

    def loss(step: int) -> torch.Tensor:
        asked = [next(complied) for _ in range(ROWS)]
        move, batch = attacked(model, tokenizer, [(p, next(refusals)) for p, _ in asked], asked, radius=radius)
        with move:
            logp, count = answer_logp(model, batch)
        refused = -(logp / count)[:ROWS].mean()
        away = torch.nn.functional.softplus((logp / count)[ROWS:].mean() + 4.0)
        return refused + 0.25 * away + setting.retention * nats_a_token(model, tokenizer, next(own))

    losses = optimise(model, setting, loss)
    after = compliance_under_attack(model, tokenizer, radius=radius)
    write_adapter(
        model, out, setting, technique="adversarial", loss_first=float(np.mean(losses[:5])),
        loss=float(np.mean(losses[-10:])),
        compliance_nats_under_attack={"before": before, "after": after},
    )  # fmt: skip
