"""Where a technique's taxes sit and in which state they are: component effects with closure, and the diagnosis.

    python -m benchmarks.real.account preference            # into benchmarks/real/results/preference.json
    python -m benchmarks.real.account preference --strong --no-diagnosis

Attributed is plain prose, on which techniques can be compared (`--with-over-refusal`: over-refusal in chat too, several times as
long), and of the other suites the one with the largest tax in probability whose interval is clear of 0 after Holm's correction.
Diagnosed are over-refusal and that suite.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks.real.bill import ASKED, KEPT, RESULTS, label, load, rows, suite_of
from benchmarks.real.techniques.names import TECHNIQUES, folder
from taxlens.core.artifacts import write_json

ITEMS = 24
"""Items of a suite that are attributed."""
DIAGNOSED = 24
"""Items of a suite that are diagnosed."""
ALWAYS = {"prose": "plain"}
"""Suites that are attributed for every technique, with their template: where plain text became dearer."""
METRICS = ("probability", "nll")


def taxed(known: dict[str, Any], metric: str = "probability") -> str:
    """The capability suite beside over-refusal that lost most, clear of 0 after Holm's correction; blank where none did."""
    lost = [
        row
        for row in known["tax"]
        if row["metric"] == metric and row["suite"] not in ASKED and row["low"] > 0 and row["p_adjusted"] < 0.05
    ]
    return max(lost, key=lambda row: row["tax"])["suite"] if lost else ""


def attributed(pair: Any, suites: dict[str, str]) -> dict[str, Any]:
    """Effects of every component and how they close, by suite."""
    found = {}
    for name, template in suites.items():
        one = pair.attribute(
            suite_of(name), template=template, metrics=METRICS, levels=("component",), items=ITEMS,
            max_gradients=15, tokens=False, perplexity=False,
        )  # fmt: skip
        effects = {}
        for metric in METRICS:
            names, values = one.effects(name, metric)
            effects[metric] = dict(zip(names, [round(float(value), 7) for value in values.mean(axis=0)]))
        closure = one.closure_frame()
        found[name] = {
            "template": template,
            "items": ITEMS,
            "effects": effects,
            "closure": rows(closure, closure.columns),
        }
    return found


def diagnosed(pair: Any, suites: dict[str, str]) -> dict[str, Any]:
    """The state of each suite with its evidence."""
    found = {}
    for name, template in suites.items():
        one = pair.diagnose(suite_of(name), template=template, items=DIAGNOSED, relearn=False)
        evidence = one.evidence_frame()
        found[name] = {
            "template": template, "items": DIAGNOSED, "state": one.state, "where": one.where, "reason": one.verdicts[-1].reason,
            "label": one.label, "notes": list(one.notes), "relearning": False,
            "evidence": rows(evidence, evidence.columns),
        }  # fmt: skip
    return found


def account(
    name: str, *, strong: bool = False, seed: int = 0, diagnosis: bool = True, over_refusal: bool = False
) -> dict[str, Any]:
    """Attribute and diagnose one adapter whose bill is kept, and write both beside the bill."""
    path = RESULTS / f"{label(name, strong=strong, seed=seed)}.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    pair = load(folder(name, strong=strong, seed=seed))
    other = taxed(known)
    suites = ALWAYS | ({"overrefusal": "chat"} if over_refusal else {}) | ({other: "plain"} if other else {})
    steps = {"attribution": (attributed, suites)}
    if diagnosis:
        steps["diagnosis"] = (diagnosed, {"overrefusal": "chat"} | ({other: "plain"} if other else {}))
    for step, (work, wanted) in steps.items():
        done = KEPT / step / f"{pair.aligned.sha256[:16]}-{'-'.join(wanted)}.json"
        if not done.exists():
            begun = time.process_time()
            found = work(pair, wanted)
            done.parent.mkdir(parents=True, exist_ok=True)
            write_json({step: found, "seconds": round(time.process_time() - begun)}, done)
        kept = json.loads(done.read_text(encoding="utf-8"))
        known[step], known["processor_seconds"][step] = kept[step], kept["seconds"]
        write_json(known, path)
    return known


def main() -> None:
    """Attribute and diagnose one technique."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TECHNIQUES)
    parser.add_argument("--strong", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-diagnosis", action="store_true", help="attribute only")
    parser.add_argument("--with-over-refusal", action="store_true", help="attribute over-refusal in chat too")
    given = parser.parse_args()
    known = account(
        given.name, strong=given.strong, seed=given.seed, diagnosis=not given.no_diagnosis,
        over_refusal=given.with_over_refusal,
    )  # fmt: skip
    for suite, one in known["attribution"].items():
        print(suite, [row for row in one["closure"] if row["metric"] == "probability"])
    for suite, one in known.get("diagnosis", {}).items():
        print(suite, one["state"], one["reason"])


if __name__ == "__main__":
    main()
