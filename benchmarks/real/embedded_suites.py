"""How a real model does on the embedded suites, and which items it gets wrong with confidence.

    python -m benchmarks.real.embedded_suites [--model .cache/smollm2/base] [--out wrong.csv] [--only capitals ...]

Prints a row a suite: items, groups, choices, the share of items whose gold choice stands first, accuracy without the
prompt's help (the longest choice), and accuracy and probability in plain text and in chat. `--out` writes the items
answered wrongly in plain text, the most confident first, to be read for items that are wrong or have two answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taxlens import suites
from taxlens.activations.items.items import Suite
from taxlens.analysis.scoring.choices import SuiteScores, score_suite
from taxlens.core.stats.intervals import mean_interval


def row(suite: Suite, scores: dict[str, SuiteScores]) -> dict[str, object]:
    """What is told of one suite."""
    longest = [max(range(len(i.choices)), key=lambda k: len(i.choices[k])) == i.gold for i in suite.items]
    found: dict[str, object] = {
        "suite": suite.name,
        "items": len(suite),
        "groups": len(set(suite.groups)),
        "choices": max(len(item.choices) for item in suite.items),
        "gold first": f"{np.mean([item.gold == 0 for item in suite.items]):.2f}",
        "longest": f"{np.mean(longest):.2f}",
    }
    for template, each in scores.items():
        values = each.metrics(("accuracy", "probability"))
        over = mean_interval(values["accuracy"], suite.groups)
        found[f"accuracy, {template}"] = f"{over.value:.3f} [{over.low:.3f}, {over.high:.3f}]"
        found[f"probability, {template}"] = f"{values['probability'].mean():.3f}"
    return found


def wrong(suite: Suite, scores: SuiteScores) -> pd.DataFrame:
    """The items answered wrongly, the least probable gold choice first."""
    values = scores.metrics(("probability",))["probability"]
    rows = [
        (suite.name, item.id, values[n], item.prompt, item.choices[item.gold or 0], item.choices[scores.choice[n]])
        for n, item in enumerate(suite.items)
        if scores.choice[n] != item.gold
    ]
    frame = pd.DataFrame(rows, columns=["suite", "item", "probability", "prompt", "gold", "says"])
    return frame.sort_values("probability", kind="stable")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2/base"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation="eager").eval()
    table, errors = [], []
    for name in given.only or suites.names():
        suite = suites.load(name)
        scores = {
            template: score_suite(model, suite, tokenizer=tokenizer, template=template)
            for template in ("plain", "chat")
        }
        table.append(row(suite, scores))
        errors.append(wrong(suite, scores["plain"]))
        print(" | ".join(map(str, table[-1].values())), flush=True)
    print()
    print(pd.DataFrame(table).to_string(index=False))
    if given.out:
        pd.concat(errors, ignore_index=True).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
