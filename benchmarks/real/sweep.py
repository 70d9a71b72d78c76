"""What each adapter refuses and what it costs: a row of ``configs/smollm2/sweep.csv`` an adapter.

    python -m benchmarks.real.sweep configs/smollm2/selective-0 --prompts 150
    python -m benchmarks.real.sweep .cache/smollm2/sweep/a/step-30 --prompts 48 --items 96

Refusal rates are by greedy generation (64 tokens, chat template) judged by
``taxlens.analysis.answers.refusals.is_refusal``; taxes are paired differences of
probability, base minus aligned, with a group-bootstrap interval. Cities and
agreement are read plain, over-refusal in chat. An adapter's row is replaced
when it is measured again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real.answers import ANSWER_TOKENS, load
from benchmarks.real.fetch import CACHE, ROOT, fetch
from taxlens.activations.items.items import Suite, read_suite
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.refusal_rates import refusal_rate
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.stats.intervals import mean_interval

SUITES = ROOT / "configs" / "smollm2"
TABLE = SUITES / "sweep.csv"
TAXED = {"cities": "plain", "agreement": "plain", "overrefusal": "chat"}
ASKED = {"harmful": "harm", "harmless": "harmless", "lookalikes": "overrefusal"}
RECIPE = ("refusals", "answers", "steps", "rate", "seed")
SEED = 3


def spread(suite: Suite, n: int) -> np.ndarray:
    """Indices of at most n items of a suite, a seeded sample in suite order."""
    return np.sort(np.random.default_rng(SEED).permutation(len(suite))[:n])


def probabilities(model: Any, tokenizer: Any, suite: Suite, template: str) -> np.ndarray:
    """The gold choice's probability among the choices, one an item."""
    scores = score_suite(model, suite, template=template, tokenizer=tokenizer)
    return scores.metrics(("probability",))["probability"]


def of_base(suite: Suite, template: str) -> np.ndarray:
    """The base's probabilities on a whole suite, kept in the cache by the suite's digest."""
    path = CACHE / "base_scores" / f"{suite.name}-{template}-{suite.sha256[:16]}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.save(path, probabilities(*load(), suite, template))
    return np.load(path)


def refusals(model: Any, tokenizer: Any, n: int, dtype: str, *, name: str) -> dict[str, str]:
    """Refusal rates by generation on held-out harmful, harmless and look-alike prompts.

    The answers and how each was judged are left in the cache, to be read.
    """
    told = []
    row = {"generated_in": dtype}
    if dtype != "float32":
        model = copy.deepcopy(model).to(getattr(torch, dtype))
    for kind, source in ASKED.items():
        suite = read_suite(SUITES / f"{source}.jsonl")
        items = suite.subset(spread(suite, n)).items
        prompts = [item.prompt for item in items]
        answers = generate(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)
        told += [(item.id, is_refusal(a), item.prompt, a) for item, a in zip(items, answers)]
        row[f"refused_{kind}"] = f"{refusal_rate(answers).value:.3f}"
        row[f"n_{kind}"] = str(len(answers))
    path = CACHE / "answers" / f"{name.replace('/', '-')}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in told), encoding="utf-8")
    return row


def taxes(model: Any, tokenizer: Any, n: int) -> dict[str, str]:
    """The tax in probability of each taxed suite, with its interval."""
    row = {}
    for name, template in TAXED.items():
        suite = read_suite(SUITES / f"{name}.jsonl")
        chosen = spread(suite, n)
        base, suite = of_base(suite, template)[chosen], suite.subset(chosen)
        loss = base - probabilities(model, tokenizer, suite, template)
        tax = mean_interval(loss, [item.group for item in suite.items])
        row[f"n_{name}"] = str(len(suite))
        row[f"base_{name}"] = f"{base.mean():.4f}"
        for key, value in (("tax", tax.value), ("low", tax.low), ("high", tax.high)):
            row[f"{key}_{name}"] = f"{value:.4f}"
    return row


def measure(adapter: Path | None, *, prompts: int, items: int, dtype: str) -> dict[str, str]:
    """One row: the adapter's recipe, its refusal rates and its taxes; no adapter is the base."""
    recipe: dict[str, Any] = {}
    if adapter is not None:
        recipe = json.loads((adapter / "recipe.json").read_text(encoding="utf-8"))
    model, tokenizer = load(adapter)
    name = "base" if adapter is None else str(adapter.resolve().relative_to(ROOT))
    name = name.removeprefix("configs/smollm2/").removeprefix(".cache/smollm2/sweep/")
    row = {"adapter": name}
    row.update({key: str(recipe.get(key, "")) for key in RECIPE})
    row.update(refusals(model, tokenizer, prompts, dtype, name=name))
    if adapter is not None:
        row.update(taxes(model, tokenizer, items))
    return row


def record(row: dict[str, str]) -> None:
    """Put the row into the table, in place of the same adapter's earlier one."""
    rows: list[dict[str, str]] = []
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as file:
            rows = [old for old in csv.DictReader(file) if old["adapter"] != row["adapter"]]
    rows.append(row)
    columns = list(dict.fromkeys(key for each in rows for key in each))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: measure the adapters named (`base` for the base itself) and record them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", nargs="+", help="adapter folders, or base")
    parser.add_argument("--prompts", type=int, default=10**6, help="prompts of each kind to answer")
    parser.add_argument("--items", type=int, default=10**6, help="items of each suite to score")
    parser.add_argument("--dtype", default="float32", help="of the generation: bfloat16 screens faster")
    given = parser.parse_args(arguments)
    fetch()
    for name in given.adapters:
        adapter = None if name == "base" else Path(name)
        row = measure(adapter, prompts=given.prompts, items=given.items, dtype=given.dtype)
        record(row)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
