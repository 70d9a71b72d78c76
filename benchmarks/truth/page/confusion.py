"""What `taxlens diagnose` calls states that were planted: `python -m benchmarks.truth.page.confusion`.

Every plant is diagnosed once and its evidence is kept under .cache/truth/results, so that a run that was stopped goes
on, and so that thresholds can be looked at again without diagnosing again. Even seeds are those that the thresholds
in `taxlens/analysis/verdict.py` were set on; the confusion matrix that counts is that of the odd seeds.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from benchmarks.truth.ground import STATES as STATE_CODE
from benchmarks.truth.ground import remembered, suite_of
from benchmarks.truth.plants.parts import Weights, add, norm, players, weights_of
from benchmarks.truth.plants.plants import noise
from benchmarks.truth.plants.state_plants import accept_state, state_plant
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from taxlens.activations.models.loading import LoadedModel, load_model
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.state.verdict import KEPT_RULES, RULES, STATES, Evidence, Test, judge, judge_layers
from taxlens.demo import resolve

PLANTED = ("intact", "suppressed", "rotated", "attenuated", "erased", "rerouted")
EVIDENCE_CODE = (
    "state/evidence", "state/upper_layers", "state/relearning", "interventions/steering", "frontier/trained_plans",
    "state/diagnose", "scoring/shared_prompt_table", "state/component_use",
)  # fmt: skip
FIELDS = ("statistic", "value", "low", "high", "control")


def diagnosed(model: PreTrainedModel, world: World, state: str, *, seed: int) -> dict[str, Any]:
    """The evidence that a diagnosis of one plant gathers, by layer, and whether the plant was accepted."""
    begun = time.process_time()
    if state == "intact":
        weights, task, accepted = _intact(model, seed), "facts", True
    else:
        plant = state_plant(model, world, state, seed=seed)
        weights, task, accepted = plant.weights, plant.task, accept_state(model, world, plant).accepted
    found = diagnose(pair_in_memory(weights), suite_of(task), other=suite_of("comparison", items=32), seed=seed)
    evidence = {
        str(layer): [[getattr(one, name) for name in FIELDS] for one in rows] for layer, rows in found.evidence.items()
    }
    return {
        "state": state, "seed": seed, "accepted": accepted, "tax": found.tax, "evidence": evidence,
        "seconds": time.process_time() - begun,
    }  # fmt: skip


def _intact(model: PreTrainedModel, seed: int) -> Weights:
    """Aligned models that keep facts: all weights moved a little (even seeds), or two components somewhat more (odd)."""
    base = weights_of(model)
    if seed % 2 == 0:
        return add(base, noise(base, players(model), size=0.004 * norm(base), seed=seed))
    chosen = np.random.default_rng([seed, 31]).choice(players(model)[1:-1], size=2, replace=False)
    return add(base, noise(base, chosen.tolist(), size=0.006 * norm(base), seed=seed))


def pair_in_memory(weights: Weights) -> ModelPair:
    """The embedded base and the given weights, without a round through the disk."""
    base = load_model(resolve("demo:base"))
    aligned = copy.deepcopy(base.model)
    aligned.load_state_dict(weights)
    aligned.eval().requires_grad_(False)
    loaded = LoadedModel(aligned, base.tokenizer, "plant", "plant", base.chat_template, base.device, base.dtype)
    return make_pair(base, loaded)


def verdict_of(record: Mapping[str, Any]) -> tuple[str, int]:
    """The state that today's rules give to a record's evidence, and the layer at which it was read (-1: no tax)."""
    found = {int(layer): [Evidence(*row) for row in rows] for layer, rows in record["evidence"].items()}
    if not any(one.statistic == "I" for rows in found.values() for one in rows):
        return judge(found[-1], KEPT_RULES).state, -1
    verdicts, where = judge_layers(found, more=[one for one in found[-1] if one.statistic == "Q"])
    return verdicts[-1].state, where


def confusion(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Planted by found: counts of plants."""
    table = pd.DataFrame(0, index=pd.Index(PLANTED, name="planted"), columns=list(STATES))
    for record in records:
        table.loc[record["state"], verdict_of(record)[0]] += 1
    return table


def margins(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """For every test of every rule: the worst of its own state's plants, and the closest of the others'.

    Read at the layer where each record's verdict was read. A threshold holds where it lies between the two; a test
    that does not tell its state from every other one leans on the rule's other tests.
    """
    rows = []
    for rule in RULES:
        for test in rule.tests:
            seen = {state: [_end(r, test) for r in records if r["state"] == state] for state in PLANTED}
            finite = {state: [v for v in values if v is not None] for state, values in seen.items()}
            worst = min if test.least > -float("inf") else max
            own = worst(finite[rule.state], default=float("nan"))
            rivals = {s: (max if worst is min else min)(v) for s, v in finite.items() if v and s != rule.state}
            closest = (max if worst is min else min)(rivals, key=lambda s: rivals[s], default="")
            rows.append((rule.state, str(test), own, closest, rivals.get(closest, float("nan"))))
    return pd.DataFrame(rows, columns=["state", "test", "own_worst", "closest_rival", "rival"]).round(3)


def _end(record: Mapping[str, Any], test: Test) -> float | None:
    """The interval's end that a test looks at, where the record's verdict was read."""
    where = verdict_of(record)[1]
    rows = [Evidence(*row) for key in (str(where), "-1") for row in record["evidence"].get(key, [])]
    seen = [one for one in rows if one.statistic in test.statistics and one.control == test.control]
    ends = [one.low if test.least > -float("inf") else one.high for one in seen if one.value == one.value]
    return (max(ends) if test.least > -float("inf") else min(ends)) if ends else None


def code_of_evidence() -> str:
    """Hash of the code that gathers evidence (the rules are not part of it)."""
    digest = hashlib.sha256()
    for name in EVIDENCE_CODE:
        digest.update((Path("analysis") / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Diagnose what is missing and print both halves' confusion matrices and the thresholds' margins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("states", nargs="*", default=list(PLANTED))
    parser.add_argument("--seeds", type=int, default=20, help="plants of each state")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world, model, code = World(), read_model(resolve("demo:base")), code_of_evidence()
    records = []
    for seed in range(args.seeds):
        for state in args.states:
            what = (state, seed, code)
            record = remembered(
                f"verdict-{state}", lambda s=state, n=seed: diagnosed(model, world, s, seed=n), *what, code=STATE_CODE
            )
            records.append(record)
            found, where = verdict_of(record)
            print(
                f"{state} {seed}: {found} (layer {where}), tax {record['tax'][0]:.3f}, accepted {record['accepted']}, "
                f"{record['seconds']:.0f} s of processor",
                flush=True,
            )
    for name, half in (("even seeds (thresholds set on these)", 0), ("odd seeds", 1)):
        mine = [record for record in records if record["seed"] % 2 == half and record["accepted"]]
        print(f"\n{name}\n{confusion(mine).to_string()}")
    print(f"\nmargins on the even seeds\n{margins([r for r in records if r['seed'] % 2 == 0]).to_string()}")


if __name__ == "__main__":
    main()
