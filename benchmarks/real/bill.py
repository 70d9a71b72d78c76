"""The alignment tax bill of one technique: its four taxes and its benefit, as one JSON file in `benchmarks/real/results`.

    python -m benchmarks.real.bill preference            # the adapter in configs/techniques, by configs/techniques/preference.yaml
    python -m benchmarks.real.bill preference --strong   # another setting, from the cache
    python -m benchmarks.real.bill --figures             # docs/figures/techniques-bill-NAME.png from what is kept

Scores and answers of a model are kept in the cache as they are made, so that the base is asked once and a killed command
goes on. Intervals, Holm's correction and the rule that judges answers are taxlens's own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.editors.answers import kept_answers
from benchmarks.real.bill_suites import OUT as SUITES
from benchmarks.real.fetch import CACHE, ROOT, fetch
from benchmarks.real.techniques.names import TECHNIQUES, folder
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.lengths import network
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.answers.bill import alignment_bill
from taxlens.analysis.answers.costs import answer_costs
from taxlens.analysis.answers.refusal_rates import refuses
from taxlens.analysis.answers.versatility import measure_versatility
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.tax.ledger import Paired, tax_frame
from taxlens.core.artifacts import write_json
from taxlens.core.stats.ratios import joint_mean

RESULTS = ROOT / "benchmarks" / "real" / "results"
KEPT = CACHE / "techniques" / "kept"
CAPABILITIES = ("capitals", "agreement", "arithmetic", "translation", "common_sense", "format", "reading", "prose")
"""Asked in plain text."""
ASKED = {"overrefusal": "capability", "harm": "benefit", "harmless": "capability"}
"""Asked in chat, by choices and by whole answers."""
SCORED = {"overrefusal": 60, "harm": 60}
"""Items of those that are scored by choices."""
ANSWERED = {"overrefusal": 150, "harm": 100, "harmless": 75}
"""Prompts that are answered."""
TOKENS = 48
"""Longest answer, in tokens."""
VARIED = 12
"""Harmless prompts whose sampled continuations are compared."""
METRICS = ("accuracy", "probability", "margin", "nll")


def suite_of(name: str, most: int | str = "all") -> Suite:
    """One suite of the bill."""
    return at_most(read_suite(SUITES / f"{name}.jsonl", name=name, kind=ASKED.get(name, "capability")), most, seed=0)


def load(adapter: Path) -> Any:
    """The base and the model under an adapter, or a whole checkpoint."""
    import taxlens

    whole = not (adapter / "adapter_config.json").exists()
    return (
        taxlens.load_pair(str(fetch()), str(adapter))
        if whole
        else taxlens.load_pair(str(fetch()), adapter=str(adapter))
    )


def scored(pair: Any, model: Any, suite: Suite, template: str) -> dict[str, np.ndarray]:
    """A model's metrics of each item, from the cache where they are."""
    path = KEPT / "scores" / f"{model.sha256[:16]}-{suite.name}-{template}-{suite.sha256[:16]}.npz"
    if not path.exists():
        found = score_suite(model, suite, prompting=as_asked(pair, model, template)).metrics(METRICS)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    with np.load(path) as kept:
        return {name: kept[name] for name in METRICS}


def paired(pair: Any, suite: Suite, template: str) -> Paired:
    """Both models on one suite."""
    base, aligned = (scored(pair, model, suite, template) for model in (pair.base, pair.aligned))
    return Paired(suite.name, suite.kind, template, tuple(i.id for i in suite.items), suite.groups, base, aligned)


def answered(pair: Any, suites: Sequence[Suite]) -> list[Answers]:
    """Both models' greedy answers in chat; how long they took is not kept."""
    said = [
        kept_answers(
            model.sha256[:16], network(model), suites, tokenizer=model.tokenizer, tokens=TOKENS, folder=KEPT
        )
        for model in (pair.base, pair.aligned)
    ]  # fmt: skip
    count = pair.base.tokenizer
    found = []
    for suite in suites:
        texts = [tuple(one[suite.name]) for one in said]
        tokens = [np.array([len(count(text, add_special_tokens=False).input_ids) for text in side]) for side in texts]
        found.append(Answers(suite, "chat", texts[0], texts[1], (tokens[0], tokens[1]), (np.nan, np.nan)))
    return found


def benefit(answers: Sequence[Answers]) -> dict[str, Any]:
    """The selective benefit by generation: refusals of harmful less refusals of harmless prompts, of both models."""
    by = {one.suite.name: one for one in answers}
    groups = [by[name].suite.groups for name in ("harm", "harmless")]
    found = {}
    for side in ("base", "aligned"):
        refused = [refuses(getattr(by[name], side)) for name in ("harm", "harmless")]
        gap = joint_mean([refused[0], -refused[1]], groups)
        found[side] = {"gap": gap.value, "low": gap.low, "high": gap.high}
        found[side] |= {name: float(refuses(getattr(one, side)).mean()) for name, one in by.items()}
    return found | {"prompts": {name: len(one.base) for name, one in by.items()}, "tokens": TOKENS}


def rows(frame: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """A table as plain rows, rounded; what is not a number is left out."""
    return json.loads(frame[list(columns)].round(6).to_json(orient="records"))


def measure(name: str, *, strong: bool = False, seed: int = 0) -> dict[str, Any]:
    """Measure the bill of one adapter and write its results; what else the file holds is kept."""
    begun, adapter = time.process_time(), folder(name, strong=strong, seed=seed)
    pair = load(adapter)
    measured = [paired(pair, suite_of(one), "plain") for one in CAPABILITIES]
    measured += [paired(pair, suite_of(one, most), "chat") for one, most in SCORED.items()]
    tax = tax_frame(measured)
    answers = answered(pair, [suite_of(one, most) for one, most in ANSWERED.items()])
    costs = [answer_costs(one).frame for one in answers]
    costs.append(measure_versatility(pair, suite_of("harmless", VARIED), samples=4, max_new_tokens=16).frame)
    told = pd.concat(costs, ignore_index=True)
    told = told[told["measure"] != "seconds_per_item"]
    bill = alignment_bill(tax, told)
    shown = (
        "suite",
        "template",
        "metric",
        "base",
        "aligned",
        "tax",
        "low",
        "high",
        "p_group",
        "p_adjusted",
        "n_items",
        "n_groups",
    )
    path = RESULTS / f"{label(name, strong=strong, seed=seed)}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    recipe = adapter / "recipe.json"
    known |= {
        "technique": name, "strong": strong, "seed": seed,
        "training": json.loads(recipe.read_text(encoding="utf-8")) if recipe.exists() else {},
        "tax": rows(tax, shown), "bill": rows(bill, bill.columns), "benefit": benefit(answers),
        "nats_a_token": nats_a_token(pair), "processor_seconds": {"bill": round(time.process_time() - begun)},
    }  # fmt: skip
    write_json(known, path)
    return known


def nats_a_token(pair: Any) -> dict[str, float]:
    """Plain prose: both models' mean nats a token, over all tokens of how the sentences go on."""
    suite = suite_of("prose")
    count = pair.base.tokenizer
    tokens = sum(len(count(item.choices[item.gold], add_special_tokens=False).input_ids) for item in suite.items)
    sides = {"base": pair.base, "aligned": pair.aligned}
    return {name: float(scored(pair, one, suite, "plain")["nll"].sum() / tokens) for name, one in sides.items()}


def label(name: str, *, strong: bool = False, seed: int = 0) -> str:
    """What a setting is called in file names."""
    return f"{name}{'-strong' if strong else ''}{f'-seed-{seed}' if seed else ''}"


def figures() -> None:
    """Draw the bill of every result that is kept."""
    from taxlens.figures.save import settle
    from taxlens.figures.style import paper_style
    from taxlens.stages.tax.bill_figure import draw_bill

    for path in sorted(RESULTS.glob("*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))
        if "bill" in known:
            drawn = draw_bill(pd.DataFrame(known["bill"]), width=5.5)
            with paper_style():
                settle(drawn.figure)
                drawn.figure.savefig(ROOT / "docs" / "figures" / f"techniques-bill-{path.stem}.png", dpi=110)


def main() -> None:
    """Measure one bill, or draw them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=TECHNIQUES)
    parser.add_argument("--strong", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", action="store_true", help="draw what is kept and measure nothing")
    given = parser.parse_args()
    if given.figures:
        figures()
        return
    if not given.name:
        parser.error("a technique, or --figures")
    known = measure(given.name, strong=given.strong, seed=given.seed)
    print(json.dumps(known["benefit"], indent=1))
    print(pd.DataFrame(known["tax"]).query("metric in ['probability', 'nll']").to_string())


if __name__ == "__main__":
    main()
