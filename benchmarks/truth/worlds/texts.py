"""Questions of the world as padded rows of token ids, ready to train on or to score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.truth.worlds.vocabulary import ASSISTANT, BOS, END, EOS, PAD, REFUSAL_TEXT, USER, vocabulary
from benchmarks.truth.worlds.world import Question, World

WIDTH = 16
TEMPLATES = ("plain", "chat")
_IDS = {word: i for i, word in enumerate(vocabulary())}


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows of one text each.

    Attributes:
        ids: token ids [rows, WIDTH], padded on the right.
        start: index of the first answer token [rows].
        stop: one past the end-of-text token [rows].
    """

    ids: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray | torch.Tensor) -> Texts:
        """The named rows."""
        rows = torch.as_tensor(rows)
        return Texts(self.ids[rows], self.start[rows], self.stop[rows])

    @property
    def answer_mask(self) -> torch.Tensor:
        """True where the *next* token is part of the answer or its end [rows, WIDTH]."""
        at = torch.arange(self.ids.shape[1])
        return (at >= self.start[:, None] - 1) & (at < self.stop[:, None] - 1)

    @property
    def prompt_mask(self) -> torch.Tensor:
        """True where the next token is a word of the prompt [rows, WIDTH]."""
        return torch.arange(self.ids.shape[1]) < self.start[:, None] - 1


def join(parts: list[Texts]) -> Texts:
    """Rows of several sets, one after the other."""
    return Texts(*(torch.cat([getattr(p, name) for p in parts]) for name in ("ids", "start", "stop")))


def encode(prompts: list[str], answers: list[str], *, template: str) -> Texts:
    """Rows that put each prompt in a template and continue with its answer and the end of text."""
    ids = torch.full((len(prompts), WIDTH), _IDS[PAD])
    start, stop = torch.zeros(len(prompts), dtype=torch.long), torch.zeros(len(prompts), dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        words = [BOS, USER, *prompt.split(), END, ASSISTANT] if template == "chat" else [BOS, *prompt.split()]
        start[row] = len(words)
        words += [*answer.split(), EOS]
        stop[row] = len(words)
        ids[row, : len(words)] = torch.tensor([_IDS[word] for word in words])
    return Texts(ids, start, stop)


def ask(questions: list[Question], *, template: str, refuse: bool = False) -> Texts:
    """Rows of questions with their true answers, or with the refusal."""
    answers = [REFUSAL_TEXT if refuse else q.answer for q in questions]
    return encode([q.prompt for q in questions], answers, template=template)


def training_questions(world: World, task: str, *, template: str, copies: int = 12_000) -> list[Question]:
    """Questions of a task that training may show in a template: none that is held out."""
    if task == "copy":
        rng = np.random.default_rng([world.seed, 4])
        return [world.copy_question(rng) for _ in range(copies)]
    asked = world.questions(task)
    if task in ("facts", "addition") and template == "plain":
        return asked
    return [q for q in asked if not world.held_out(q)]


def held_out_questions(world: World, task: str) -> list[Question]:
    """Questions of a task that training never shows (facts and sums: never in chat)."""
    if task == "copy":
        return world.questions(task)
    return [q for q in world.questions(task) if world.held_out(q)]
