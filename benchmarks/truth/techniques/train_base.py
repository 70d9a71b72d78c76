"""Trains the base model of the embedded world from scratch: `python -m benchmarks.truth.techniques.train_base`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from benchmarks.truth.worlds.texts import TEMPLATES, Texts, ask, encode, held_out_questions, join, training_questions
from benchmarks.truth.worlds.tokenizer import build_tokenizer
from benchmarks.truth.worlds.vocabulary import vocabulary
from benchmarks.truth.worlds.world import TASKS, Question, World


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the optimiser.

    Attributes:
        steps, rate: length and peak rate (warm-up and cosine).
        share: of each task in the texts; `repeat` (say a list again) only helps copying along.
        apart: pairs of numbers up to this far from each other are all shown; of the others a third is held out.
    """

    steps: int
    rate: float
    share: Mapping[str, float]
    apart: int = 1


_FIRST = {"facts": 0.14, "addition": 0.16, "comparison": 0.24, "copy": 0.3, "harmless": 0.08, "harm": 0.08}
STAGES = (
    Stage(4000, 3e-3, _FIRST, apart=0),
    Stage(2000, 2e-3, _FIRST | {"copy": 0.22, "repeat": 0.12}),
    Stage(700, 1.5e-3, _FIRST | {"comparison": 0.4, "copy": 0.3, "repeat": 0.06}),
)
REFUSED = dict.fromkeys(TASKS, 0.01) | {"harm": 0.12}


def llama(*, d_model: int = 96, n_layers: int = 4, d_ff: int = 256, seed: int = 0) -> LlamaForCausalLM:
    """A fresh Llama-layout model of the world: four heads, two key-value heads, embeddings apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=d_model,
        intermediate_size=d_ff,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def gpt2(*, d_model: int = 96, n_layers: int = 4, seed: int = 0) -> GPT2LMHeadModel:
    """A fresh GPT-2-layout model of the world: layer norms with biases, learned positions, embeddings apart."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(vocabulary()),
        n_embd=d_model,
        n_layer=n_layers,
        n_head=4,
        n_inner=4 * d_model,
        n_positions=64,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config)


class Stream:
    """Batches of the world's texts: tasks by share, templates by halves, now and then a refusal."""

    def __init__(self, world: World, stage: Stage, *, seed: int) -> None:
        self.rng = np.random.default_rng([world.seed, 5, seed])
        self.pools = {
            (task, template, refuse): ask(
                self._questions(world, task, template, stage), template=template, refuse=refuse
            )
            for task in TASKS
            for template in TEMPLATES
            for refuse in (False, True)
        }
        lists = [q.prompt.split()[1:5] for q in training_questions(world, "copy", template="plain")]
        for template in TEMPLATES:
            asked = [f"echo {' '.join(words)} ;" for words in lists]
            texts = encode(asked, [" ".join(words) for words in lists], template=template)
            self.pools["repeat", template, False] = texts
        self.keys = list(self.pools)
        self.chances = np.array(
            [
                stage.share.get(task, 0) / 2 * (REFUSED.get(task, 0) if refuse else 1 - REFUSED.get(task, 0))
                for task, _, refuse in self.keys
            ]
        )

    @staticmethod
    def _questions(world: World, task: str, template: str, stage: Stage) -> list[Question]:
        if task != "comparison":
            return training_questions(world, task, template=template)
        return [q for q in world.questions(task) if not world.held_pair(q.key, apart=stage.apart)]

    def batch(self, size: int) -> Texts:
        """The next `size` rows."""
        counts = self.rng.multinomial(size, self.chances / self.chances.sum())
        drawn = []
        for key, count in zip(self.keys, counts):
            if count:
                pool = self.pools[key]
                drawn.append(pool.take(self.rng.integers(len(pool), size=count)))
        return join(drawn)


def language_loss(logits: torch.Tensor, texts: Texts, *, prompt_weight: float = 0.05) -> torch.Tensor:
    """Smoothed cross-entropy of answers, plus a little of prompts (nats a row)."""
    width = logits.shape[1]
    target = functional.pad(texts.ids[:, 1:width], (0, 1))
    losses = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none", label_smoothing=0.02)
    weight = texts.answer_mask[:, :width] + prompt_weight * texts.prompt_mask[:, :width]
    return (losses * weight).sum() / len(texts)


def train_stage(
    world: World, model: PreTrainedModel, stage: Stage, *, batch: int = 160, seed: int = 0, report: int = 500
) -> PreTrainedModel:
    """The model, trained on the world's texts in place (AdamW, warm-up and cosine)."""
    stream, steps = Stream(world, stage, seed=seed), stage.steps
    optimiser = torch.optim.AdamW(model.parameters(), lr=stage.rate, weight_decay=0.1, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 100, 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * i / steps)))
    )
    model.train()
    for step in range(steps):
        texts = stream.batch(batch)
        logits = model(input_ids=texts.ids[:, : int(texts.stop.max())]).logits
        loss = language_loss(logits, texts)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if report and step % report == report - 1:
            print(f"step {step + 1} loss {loss.item():.3f}", mastery(model, world), flush=True)
            model.train()
    return model.eval()


@torch.no_grad()
def mastery(model: PreTrainedModel, world: World) -> dict[str, float]:
    """Share of held-out questions of each task answered right, word for word, by greedy decoding.

    Facts and sums are tables, so their held-out questions are those that training never asked in chat.
    """
    model.eval()
    shares = {}
    for task in TASKS:
        questions = held_out_questions(world, task)
        right = []
        for template in TEMPLATES[1:] if task in ("facts", "addition") else TEMPLATES:
            texts = ask(questions, template=template)
            guess = model(input_ids=texts.ids).logits.argmax(-1)[:, :-1]
            mask = texts.answer_mask[:, :-1]
            right.append(((guess == texts.ids[:, 1:]) | ~mask).all(1).float().mean().item())
        shares[task] = round(float(np.mean(right)), 4)
    return shares


def main() -> None:
    """Train the embedded base and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=["llama", "gpt2"], default="llama")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--after", type=Path, help="go on from this directory")
    parser.add_argument("--done", type=int, default=0, help="stages that it has behind it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    build = llama if args.layout == "llama" else gpt2
    begun, stages = time.time(), list(enumerate(STAGES))
    model: PreTrainedModel = build(n_layers=args.layers, seed=args.seed)
    if args.after:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(args.after).state_dict())
    for number, stage in stages[args.done :]:
        train_stage(World(), model, stage, seed=args.seed + number)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {time.time() - begun:.0f} s")
    model.save_pretrained(args.out)
    build_tokenizer().save_pretrained(args.out)


if __name__ == "__main__":
    main()
