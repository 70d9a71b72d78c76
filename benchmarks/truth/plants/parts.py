"""Changes of named components of a model, and how a change is fitted to what it should do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional
from transformers import PreTrainedModel

from benchmarks.truth.worlds.texts import Texts

Weights = dict[str, torch.Tensor]


def component_of(parameter: str) -> str:
    """The component (`2.mlp`, `embed`, ...) that a parameter of a Llama or GPT-2 layout belongs to."""
    found = re.search(r"\.(?:layers|h)\.(\d+)\.(.+)", parameter)
    if found is None:
        if "embed_tokens" in parameter or ".wte." in parameter or ".wpe." in parameter:
            return "embed"
        return "unembed" if "lm_head" in parameter else "final_norm"
    layer, rest = found.groups()
    if rest.startswith(("self_attn.", "attn.")):
        return f"{layer}.attn"
    return f"{layer}.mlp" if rest.startswith("mlp.") else f"{layer}.norm"


def players(model: PreTrainedModel) -> list[str]:
    """Components that hold matrices, in network order: embed, 0.attn, 0.mlp, ..., unembed."""
    layers = model.config.num_hidden_layers
    middle = [f"{layer}.{kind}" for layer in range(layers) for kind in ("attn", "mlp")]
    return ["embed", *middle, "unembed"]


def weights_of(model: PreTrainedModel) -> Weights:
    """A detached copy of all parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def select(weights: Weights, components: Iterable[str]) -> Weights:
    """The parameters that belong to the named components."""
    wanted = set(components)
    return {name: value for name, value in weights.items() if component_of(name) in wanted}


def add(weights: Weights, *changes: Weights, scale: float = 1.0) -> Weights:
    """Weights plus `scale` times each change."""
    total = dict(weights)
    for change in changes:
        for name, value in change.items():
            total[name] = total[name] + scale * value
    return total


def subtract(weights: Weights, other: Weights) -> Weights:
    """The change that leads from `other` to `weights`."""
    return {name: value - other[name] for name, value in weights.items()}


def norm(change: Weights) -> float:
    """Frobenius norm of a change over all its matrices."""
    return float(torch.sqrt(sum((v.double() ** 2).sum() for v in change.values()) + torch.tensor(0.0)))


def halved(weights: Weights) -> Weights:
    """Weights rounded to float16 and back: what the written file will hold."""
    return {name: value.to(torch.float16).to(torch.float32) for name, value in weights.items()}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a change must do in one setting.

    Attributes:
        teacher: weights whose answers are to be kept.
        student: weights that the change is added to.
        refuse: how likely a row's answer is to become a refusal [rows]; zero keeps the teacher's answer.
        only: components of the change that take part; all when empty.
    """

    teacher: Weights
    student: Weights
    refuse: torch.Tensor
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how fast a change is fitted."""

    steps: int = 400
    batch: int = 64
    rate: float = 2e-3
    seed: int = 0
    walk: bool = False
    """Fit the change at every fraction of itself, so that the straight path is fit to walk."""
    lessons: Sequence[float] = field(default=())
    """Chance of each lesson; equal when empty."""


def wished(teacher: torch.Tensor, texts: Texts, refuse: torch.Tensor, *, token: int) -> torch.Tensor:
    """Teacher's next-word probabilities with a refusal mixed in where the answer begins."""
    wish = teacher.softmax(-1)
    rows = torch.arange(len(texts))
    first = texts.start - 1
    mixed = wish[rows, first] * (1 - refuse[:, None])
    mixed[:, token] += refuse
    wish[rows, first] = mixed
    return wish


def divergence(logits: torch.Tensor, wish: torch.Tensor, texts: Texts, *, prompts: float = 0.05) -> torch.Tensor:
    """Kullback-Leibler divergence of the wish from the model, answers plus a little of prompts (nats a row)."""
    width = logits.shape[1]
    each = functional.kl_div(logits.log_softmax(-1), wish, reduction="none").sum(-1)
    weight = texts.answer_mask[:, :width] + prompts * texts.prompt_mask[:, :width]
    return (each * weight).sum() / len(texts)


def fit_change(
    model: PreTrainedModel,
    start: Weights,
    texts: Texts,
    lessons: Sequence[Lesson],
    *,
    refusal_token: int,
    training: Training,
    after_step: Callable[[Weights], None] | None = None,
    form: Callable[[Weights], Weights] = dict,
) -> Weights:
    """The change of the named parameters that best does what the lessons ask.

    Args:
        model: gives the forward pass; its own weights are not used.
        start: free values to begin from: the change itself, unless `form` says otherwise.
        texts: rows to learn from.
        lessons: settings, drawn at random each step.
        refusal_token: id of the refusal's first word.
        training: length, rate and seed.
        after_step: may correct the change in place after each step (a norm to be kept, for instance).
        form: turns the free values into a change by parameter (a product of two factors, for instance).

    Returns:
        The change, one tensor a parameter.
    """
    rng = np.random.default_rng([training.seed, 11])
    free = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    optimiser = torch.optim.Adam(free.values(), lr=training.rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: min((i + 1) / 20, 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * i / training.steps))),
    )
    chances = np.array(training.lessons or [1.0] * len(lessons), dtype=float)
    for _ in range(training.steps):
        lesson = lessons[rng.choice(len(lessons), p=chances / chances.sum())]
        rows = rng.integers(len(texts), size=training.batch)
        batch, refuse = texts.take(rows), lesson.refuse[torch.as_tensor(rows)]
        ids = batch.ids[:, : int(batch.stop.max())]
        with torch.no_grad():
            teacher = functional_call(model, lesson.teacher, kwargs={"input_ids": ids}).logits
            wish = wished(teacher, batch, refuse, token=refusal_token)
        fraction = float(rng.uniform(0.1, 1.0)) if training.walk and rng.random() < 0.5 else 1.0
        change = select(form(free), lesson.only) if lesson.only else form(free)
        student = add(lesson.student, change, scale=fraction)
        loss = divergence(functional_call(model, student, kwargs={"input_ids": ids}).logits, wish, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if after_step is not None:
            with torch.no_grad():
                after_step(free)
    return {name: value.detach() for name, value in form(free).items()}
