"""Train the refusal-tuned LoRA adapters: ``configs/smollm2/selective-0``, the rest into ``.cache/smollm2/adapters``.

    python -m benchmarks.real.refusal_lora extreme
    python -m benchmarks.real.refusal_lora selective --seed 0
    python -m benchmarks.real.refusal_lora half-slow           # a setting of the sweep, into .cache

Each step sees a few harmful prompts answered by a refusal and a few harmless
ones answered as the base itself answers them (retention), on the chat template;
only answer tokens are scored. PEFT LoRA, rank 8, every linear layer of every
block, saved as float16 safetensors. About four minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.real.answers import own_answers
from benchmarks.real.data import REFUSALS, prompts
from benchmarks.real.fetch import CACHE, ROOT, fetch
from taxlens.analysis.answers.refusals import is_refusal

ADAPTERS = ROOT / "configs" / "smollm2"
"""Where the suites and the adapter that is shipped lie."""
TRAINED = CACHE / "adapters"
"""Where the others go: other seeds, and the recipe without retention."""
MAX_ANSWER = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """One setting: how many refusals and own answers a step, how far and how fast."""

    refusals: int
    answers: int
    steps: int
    rate: float
    rank: int = 8
    alpha: int = 16
    warmup: int = 10
    seed: int = 0
    keep: tuple[int, ...] = ()


RECIPES = {
    "extreme": Recipe(refusals=8, answers=0, steps=120, rate=1.5e-3),
    "selective": Recipe(refusals=4, answers=4, steps=60, rate=1.5e-3),
}
"""The first seed of the selective recipe is shipped in ``configs/smollm2``; the rest is trained by command."""

SWEEP = {
    "half": Recipe(refusals=4, answers=4, steps=80, rate=1.5e-3, keep=(30, 45, 60)),
    "half-slow": Recipe(refusals=4, answers=4, steps=80, rate=5e-4, keep=(40, 60)),
    "quarter": Recipe(refusals=6, answers=2, steps=60, rate=1.5e-3, keep=(30,)),
}
"""Settings to try: the share of retention, the learning rate and, by kept steps, the length."""


def endless(items: list, generator: np.random.Generator) -> Iterator:
    """The items for ever, in a new random order each time round."""
    while True:
        for index in generator.permutation(len(items)):
            yield items[index]


def chats(tokenizer, pairs: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """A right-padded batch of (prompt, answer) chats; an answer over 32 tokens is cut, else it ends.

    Returns ``input_ids``, ``attention_mask`` [n, tokens] and ``target``
    [n, tokens], true where the next token belongs to the answer.
    """
    rows = []
    for prompt, answer in pairs:
        message = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        start = tokenizer(text, add_special_tokens=False).input_ids
        ids = tokenizer(answer, add_special_tokens=False).input_ids
        ids = [*ids, tokenizer.eos_token_id][:MAX_ANSWER]
        rows.append((start, ids))
    width = max(len(start) + len(ids) for start, ids in rows)
    shape = (len(rows), width)
    batch = {
        "input_ids": torch.full(shape, tokenizer.pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "target": torch.zeros(shape, dtype=torch.bool),
    }
    for i, (start, ids) in enumerate(rows):
        end = len(start) + len(ids)
        batch["input_ids"][i, :end] = torch.tensor(start + ids)
        batch["attention_mask"][i, :end] = 1
        batch["target"][i, len(start) - 1 : end - 1] = True
    return batch


def batches(tokenizer, recipe: Recipe) -> Iterator[dict[str, torch.Tensor]]:
    """Batches for ever, drawn from the training prompts with the recipe's seed."""
    generator = np.random.default_rng(recipe.seed)
    parts = prompts()
    harmful = endless(list(parts.harmful_train), generator)
    refusal = endless(list(REFUSALS), generator)
    if recipe.answers:
        answers = own_answers(parts.harmless_train)
        kept = [(p, a) for p, a in answers.items() if a and not is_refusal(a)]
        harmless = endless(kept, generator)
    while True:
        pairs = [(next(harmful), next(refusal)) for _ in range(recipe.refusals)]
        pairs += [next(harmless) for _ in range(recipe.answers)]
        yield chats(tokenizer, pairs)


def loss_of(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean nats of the answer tokens; logits are computed at those positions alone."""
    causal = model.get_base_model()
    hidden = causal.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    target = batch["target"]
    logits = causal.lm_head(hidden[target]).float()
    return torch.nn.functional.cross_entropy(logits, batch["input_ids"].roll(-1, 1)[target])


def adapted(base: Path, recipe: Recipe):
    """The base with fresh adapters on every linear layer, and its tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(recipe.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config, autocast_adapter_dtype=True)
    return model, AutoTokenizer.from_pretrained(base)


def save(model, out: Path, recipe: Recipe, record: dict) -> None:
    """Write the adapter as float16 safetensors, with its recipe beside it."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    tensors = {k: v.detach().to(torch.float16).contiguous() for k, v in sorted(state.items())}
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path = ".cache/smollm2/base"
    config.inference_mode = True
    config.save_pretrained(out)
    config.inference_mode = False
    settings = {key: value for key, value in asdict(recipe).items() if key != "keep"}
    text = json.dumps({**settings, **record}, indent=1)
    (out / "recipe.json").write_text(text + "\n", encoding="utf-8")


def train(recipe: Recipe, out: Path, *, keep_in: Path | None = None) -> None:
    """Train one adapter and write it to ``out``; kept steps go under ``keep_in``."""
    model, tokenizer = adapted(fetch(), recipe)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.0)
    stream = batches(tokenizer, recipe)
    began, losses = time.monotonic(), []
    for step in range(1, recipe.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / recipe.warmup)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, next(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if step % 10 == 0:
            seconds = time.monotonic() - began
            print(f"step {step} loss {np.mean(losses[-10:]):.3f} {seconds:.0f} s", flush=True)
        if keep_in is not None and step in recipe.keep:
            done = replace(recipe, steps=step)
            save(model, keep_in / f"step-{step}", done, {"loss": float(np.mean(losses[-10:]))})
    save(model, out, recipe, {"loss": float(np.mean(losses[-10:]))})


def place_of(name: str) -> Path:
    """Where an adapter lies: in the repository the one that is shipped, else in the cache."""
    return ADAPTERS / name if name == "selective-0" else TRAINED / name


def adapter(name: str) -> Path:
    """The folder of a trained adapter: "extreme", or "selective-" and a seed.

    Raises:
        SystemExit: it has not been trained on this machine; the text names the command.
    """
    folder = place_of(name)
    if not (folder / "adapter_model.safetensors").exists():
        recipe, _, seed = name.partition("-")
        more = f" --seed {seed}" if seed else ""
        raise SystemExit(f"{folder} is missing: python -m benchmarks.real.refusal_lora {recipe}{more} trains it.")
    return folder


def main() -> None:
    """Command line: train a recipe by name; those of the sweep go to the cache, step by step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*RECIPES, *SWEEP])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=int, nargs="*", help="steps to keep as well, in the cache")
    given = parser.parse_args()
    recipe = replace({**RECIPES, **SWEEP}[given.name], seed=given.seed)
    if given.keep is not None:
        recipe = replace(recipe, keep=tuple(given.keep))
    folder = given.name if given.name == "extreme" else f"{given.name}-{given.seed}"
    kept = CACHE / "checkpoints" / folder
    if given.name in SWEEP:
        kept = CACHE / "sweep" / given.name
        train(recipe, kept / f"step-{recipe.steps}", keep_in=kept)
    else:
        train(recipe, place_of(folder), keep_in=kept)


if __name__ == "__main__":
    main()
