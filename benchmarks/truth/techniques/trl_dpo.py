"""Preference optimisation by `trl` beside the proving ground's own: `python -m benchmarks.truth.techniques.trl_dpo`.

The same preferences (refusals of harm over answers, answers over refusals elsewhere), loss, base, beta, rate, batch and
number of steps; what differs is the trainer. Both are judged by the same outcome: benefit and tax by suite. Needs the
extra `truth`.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights, component_of, weights_of
from benchmarks.truth.techniques.align import RECIPES, outcome
from benchmarks.truth.techniques.techniques import Pool, Recipe, dpo
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.tokenizer import build_tokenizer
from benchmarks.truth.worlds.vocabulary import ASSISTANT, END, REFUSAL_TEXT, USER
from benchmarks.truth.worlds.world import Question, World
from taxlens.demo import resolve


def preferences(world: World, recipe: Recipe) -> list[dict[str, str]]:
    """Rows of prompt, chosen and rejected text: `steps` batches, drawn as the proving ground's own run draws."""
    rng = np.random.default_rng([recipe.seed, 32])
    harm, kept = Pool(world, ("harm",)), Pool(world, recipe.retained)
    n_kept = round(recipe.batch * recipe.retention / (1 + recipe.retention))
    rows: list[dict[str, str]] = []
    for _ in range(recipe.steps):
        for pool, count, refuse in ((harm, recipe.batch - n_kept, True), (kept, n_kept, False)):
            if count:
                questions, template = pool.draw(rng, count)
                rows += [_row(question, template, refuse=refuse) for question in questions]
    return rows


def _row(question: Question, template: str, *, refuse: bool) -> dict[str, str]:
    prompt = f"{USER} {question.prompt} {END} {ASSISTANT}" if template == "chat" else question.prompt
    answers = [f" {REFUSAL_TEXT}", f" {question.answer}"]
    chosen, rejected = answers if refuse else answers[::-1]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def trl_dpo(base: PreTrainedModel, world: World, recipe: Recipe) -> Weights:
    """Weights after `trl.DPOTrainer` on the preferences; norms stay as they are."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = copy.deepcopy(base)
    for name, value in model.named_parameters():
        value.requires_grad_("norm" not in component_of(name))
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=recipe.batch,
            max_steps=recipe.steps,
            learning_rate=recipe.rate,
            beta=recipe.beta,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            seed=recipe.seed,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            bf16=False,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=model,
            ref_model=copy.deepcopy(base),
            args=config,
            train_dataset=Dataset.from_list(preferences(world, recipe)),
            processing_class=build_tokenizer(),
        )
        trainer.train()
    return weights_of(trainer.model)


def main() -> None:
    """Train with both and print what each bought and cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=RECIPES["rlhf"].steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    world, model = World(), read_model(resolve("demo:base"))
    recipe = Recipe(steps=args.steps, rate=1e-3, retention=1.0, beta=0.6)
    for name, train in (("own", dpo), ("trl", trl_dpo)):
        begun = time.process_time()
        found: dict[str, Any] = outcome(model, world, train(model, world, recipe))
        taxes = {task: tax["probability"] for task, tax in found["tax"].items()}
        print(f"{name}: benefit {found['benefit']}, taxes {taxes}, {time.process_time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
