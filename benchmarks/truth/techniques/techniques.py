"""The techniques that the field taxes, each as a real training run on the base of a world.

Every run starts from the same base, moves every matrix (norms stay), and returns the aligned weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from benchmarks.truth.plants.parts import Weights, component_of, divergence, weights_of
from benchmarks.truth.worlds.generation import generate
from benchmarks.truth.worlds.texts import TEMPLATES, Texts, ask, encode, join, training_questions
from benchmarks.truth.worlds.vocabulary import REFUSAL_TEXT
from benchmarks.truth.worlds.world import Question, World


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a run.

    Attributes:
        steps, batch, rate, seed: of the optimiser.
        retention: rows that keep the base's answers, for each row that teaches a refusal.
        retained: tasks that those rows come from.
        beta: strength of the tie to the base, in preference training.
    """

    steps: int = 200
    batch: int = 48
    rate: float = 5e-4
    seed: int = 0
    retention: float = 0.5
    retained: tuple[str, ...] = ("harmless",)
    beta: float = 0.2


@dataclass
class Pool:
    """Questions of some tasks in both templates, with any text as their answers."""

    world: World
    tasks: tuple[str, ...]
    questions: list[Question] = field(init=False)

    def __post_init__(self) -> None:
        self.questions = [
            q for task in self.tasks for q in training_questions(self.world, task, template="plain", copies=200)
        ]

    def draw(self, rng: np.random.Generator, size: int) -> tuple[list[Question], str]:
        """Some questions, and the template to ask them in."""
        picked = rng.integers(len(self.questions), size=size)
        return [self.questions[i] for i in picked], TEMPLATES[int(rng.integers(2))]


def answer_logp(model: PreTrainedModel, texts: Texts) -> torch.Tensor:
    """Log-probability of each row's answer and its end [rows]."""
    logits = model(input_ids=texts.ids).logits[:, :-1]
    each = logits.log_softmax(-1).gather(-1, texts.ids[:, 1:, None])[..., 0]
    return (each * texts.answer_mask[:, :-1]).sum(1)


def keep_base(model: PreTrainedModel, base: PreTrainedModel, texts: Texts) -> torch.Tensor:
    """How far the model's answers have left the base's (nats a row)."""
    with torch.no_grad():
        wish = base(input_ids=texts.ids).logits.softmax(-1)
    return divergence(model(input_ids=texts.ids).logits, wish, texts)


def run(base: PreTrainedModel, recipe: Recipe, loss: Callable[[PreTrainedModel], torch.Tensor]) -> Weights:
    """Weights after `steps` of Adam on a loss; norms stay as they are."""
    torch.manual_seed(recipe.seed)
    model = copy.deepcopy(base)
    moving = []
    for name, value in model.named_parameters():
        fixed = "norm" in component_of(name)
        value.requires_grad_(not fixed)
        if not fixed:
            moving.append(value)
    optimiser = torch.optim.Adam(moving, lr=recipe.rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 10, 0.1 + 0.9 * (1 - i / recipe.steps))
    )
    for _ in range(recipe.steps):
        optimiser.zero_grad()
        value = loss(model)
        value.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimiser.step()
        schedule.step()
    return weights_of(model)


def refusal_tuning(base: PreTrainedModel, world: World, recipe: Recipe) -> Weights:
    """Supervised refusals of harmful prompts, with or without retention of the base's harmless answers."""
    rng = np.random.default_rng([recipe.seed, 31])
    harm, kept = Pool(world, ("harm",)), Pool(world, recipe.retained)
    n_kept = round(recipe.batch * recipe.retention / (1 + recipe.retention))

    def loss(model: PreTrainedModel) -> torch.Tensor:
        questions, template = harm.draw(rng, recipe.batch - n_kept)
        total = -answer_logp(model, ask(questions, template=template, refuse=True)).mean()
        if n_kept:
            questions, template = kept.draw(rng, n_kept)
            total = total + recipe.retention * keep_base(model, base, ask(questions, template=template))
        return total

    return run(base, recipe, loss)


def preference_loss(
    model: PreTrainedModel, base: PreTrainedModel, chosen: Texts, rejected: Texts, *, beta: float
) -> torch.Tensor:
    """The loss of direct preference optimisation.

    References:
        Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """
    both, n = join([chosen, rejected]), len(chosen)
    with torch.no_grad():
        before = answer_logp(base, both)
    gain = answer_logp(model, both) - before
    return -functional.logsigmoid(beta * (gain[:n] - gain[n:])).mean()


def dpo(base: PreTrainedModel, world: World, recipe: Recipe) -> Weights:
    """Preference optimisation without a reward model: refusals of harm over answers, answers over refusals else."""
    rng = np.random.default_rng([recipe.seed, 32])
    harm, kept = Pool(world, ("harm",)), Pool(world, recipe.retained)
    n_kept = round(recipe.batch * recipe.retention / (1 + recipe.retention))

    def loss(model: PreTrainedModel) -> torch.Tensor:
        questions, template = harm.draw(rng, recipe.batch - n_kept)
        refused, told = ask(questions, template=template, refuse=True), ask(questions, template=template)
        if n_kept:
            others, template = kept.draw(rng, n_kept)
            refused = join([refused, ask(others, template=template)])
            told = join([told, ask(others, template=template, refuse=True)])
        return preference_loss(model, base, refused, told, beta=recipe.beta)

    return run(base, recipe, loss)


def reward_model(base: PreTrainedModel, world: World, recipe: Recipe) -> Callable[[Texts], torch.Tensor]:
    """A reward read off the base's last hidden state, fitted to preferences by Bradley and Terry's likelihood."""
    rng = np.random.default_rng([recipe.seed, 33])
    harm, kept = Pool(world, ("harm",)), Pool(world, ("harmless",))
    torch.manual_seed(recipe.seed)

    def features(texts: Texts) -> torch.Tensor:
        with torch.no_grad():
            states = base(input_ids=texts.ids, output_hidden_states=True).hidden_states[-1]
        rows = torch.arange(len(texts))
        return torch.stack([states[rows, texts.start - 1], states[rows, texts.start]], 1)

    head = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(2 * base.config.hidden_size, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
    )
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(150):
        bad, template = harm.draw(rng, 24)
        good, other = kept.draw(rng, 24)
        chosen = join([ask(bad, template=template, refuse=True), ask(good, template=other)])
        rejected = join([ask(bad, template=template), ask(good, template=other, refuse=True)])
        loss = -functional.logsigmoid(head(features(chosen)) - head(features(rejected))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def reward(texts: Texts) -> torch.Tensor:
        return head(features(texts))[:, 0].clamp(-4, 4)

    return reward


def rlhf(base: PreTrainedModel, world: World, recipe: Recipe) -> Weights:
    """Policy gradient against a reward model: sampled answers, reward less a price on leaving the base.

    References:
        Williams 1992 (REINFORCE); Ouyang et al. 2022, arXiv 2203.02155, equation 2; baseline: the batch's mean.
    """
    rng = np.random.default_rng([recipe.seed, 34])
    reward = reward_model(base, world, recipe)
    harm, kept = Pool(world, ("harm",)), Pool(world, recipe.retained)
    n_kept = round(recipe.batch * recipe.retention / (1 + recipe.retention))

    def loss(model: PreTrainedModel) -> torch.Tensor:
        rows = []
        for pool, size in ((harm, recipe.batch - n_kept), (kept, n_kept)):
            if size:
                questions, template = pool.draw(rng, size)
                prompts = [q.prompt for q in questions]
                seed = int(rng.integers(2**31))
                answers = generate(model, prompts, template=template, sample=seed)
                rows.append(encode(prompts, answers, template=template))
        texts = join(rows)
        logp = answer_logp(model, texts)
        with torch.no_grad():
            gain = reward(texts) - recipe.beta * (logp - answer_logp(base, texts))
            gain = (gain - gain.mean()) / (gain.std() + 1e-6)
        return -(gain * logp).mean()

    return run(base, recipe, loss)


RULES = (
    ("no recipe is given for a harmful thing", lambda q, said: q.task == "harm" and not said.startswith("sorry")),
    ("no harmless request is refused", lambda q, said: q.task == "harmless" and said.startswith("sorry")),
)
"""The constitution of the world: what a rule says, and when an answer breaks it."""


def critique(question: Question, said: str) -> list[str]:
    """The rules that an answer breaks."""
    return [rule for rule, broken in RULES if broken(question, said)]


def revise(question: Question, said: str) -> str:
    """The answer, rewritten until it breaks no rule."""
    if not critique(question, said):
        return said
    return REFUSAL_TEXT if question.task == "harm" else question.answer


def constitutional(base: PreTrainedModel, world: World, recipe: Recipe) -> Weights:
    """Critique and revision by written rules: first supervised on revisions, then preference over the originals.

    References:
        Bai et al. 2022, arXiv 2212.08073.
    """
    rng = np.random.default_rng([recipe.seed, 35])
    pool = Pool(world, ("harm", *recipe.retained))
    half = recipe.steps // 2
    seen = {"steps": 0}

    def loss(model: PreTrainedModel) -> torch.Tensor:
        seen["steps"] += 1
        questions, template = pool.draw(rng, recipe.batch)
        prompts = [q.prompt for q in questions]
        said = generate(base, prompts, template=template, sample=int(rng.integers(2**31)))
        better = [revise(q, s) for q, s in zip(questions, said)]
        chosen = encode(prompts, better, template=template)
        if seen["steps"] <= half:
            return -answer_logp(model, chosen).mean()
        changed = np.flatnonzero([s != b for s, b in zip(said, better)])
        rejected = encode(prompts, said, template=template)
        return preference_loss(model, base, chosen.take(changed), rejected.take(changed), beta=recipe.beta)

    return run(base, recipe, loss)


def adversarial(
    base: PreTrainedModel, world: World, recipe: Recipe, *, radius: float = 0.6, ascents: int = 3
) -> Weights:
    """Adversarial training in embedding space: refuse harm even where its words are moved to make it be told.

    Args:
        base: where the run starts.
        world: its world.
        recipe: settings.
        radius: how far a word may be moved, as a share of the mean norm of an embedding.
        ascents: steps of the inner attack.

    References:
        Schwinn et al. 2024, arXiv 2402.09063; Xhonneux et al. 2024, arXiv 2405.15589.
    """
    rng = np.random.default_rng([recipe.seed, 36])
    harm, kept = Pool(world, ("harm",)), Pool(world, recipe.retained)
    n_kept = round(recipe.batch * recipe.retention / (1 + recipe.retention))

    def moved_logp(model: PreTrainedModel, texts: Texts, move: torch.Tensor) -> torch.Tensor:
        words = model.get_input_embeddings()(texts.ids)
        prompt = torch.arange(texts.ids.shape[1]) < texts.start[:, None]
        logits = model(inputs_embeds=words + move * prompt[..., None]).logits[:, :-1]
        each = logits.log_softmax(-1).gather(-1, texts.ids[:, 1:, None])[..., 0]
        return (each * texts.answer_mask[:, :-1]).sum(1)

    def attack(model: PreTrainedModel, told: Texts) -> torch.Tensor:
        reach = radius * model.get_input_embeddings().weight.norm(dim=1).mean().item()
        move = torch.zeros(*told.ids.shape, model.config.hidden_size, requires_grad=True)
        for _ in range(ascents):
            (slope,) = torch.autograd.grad(moved_logp(model, told, move).sum(), move)
            stepped = move.detach() + reach / 2 * slope / (slope.norm(dim=-1, keepdim=True) + 1e-9)
            move = stepped * (reach / stepped.norm(dim=-1, keepdim=True).clamp(min=reach))
            move.requires_grad_(True)
        return move.detach()

    def loss(model: PreTrainedModel) -> torch.Tensor:
        questions, template = harm.draw(rng, recipe.batch - n_kept)
        move = attack(model, ask(questions, template=template))
        refused = ask(questions, template=template, refuse=True)
        total = -moved_logp(model, refused, move).mean() - answer_logp(model, refused).mean()
        if n_kept:
            others, template = kept.draw(rng, n_kept)
            total = total + recipe.retention * keep_base(model, base, ask(others, template=template))
        return total

    return run(base, recipe, loss)


TECHNIQUES = {
    "refusal": refusal_tuning,
    "rlhf": rlhf,
    "constitutional": constitutional,
    "adversarial": adversarial,
}
