"""What plans were predicted to keep of the benefit, and what they keep on the items that they were chosen on.

`python -m benchmarks.accuracy.frontier_benefit RUN --plans path-2.5% magnitude-2.5%` reads a run's kept effects (path and one
gradient) and scores each plan on the training items: what is missed there is curvature, and no luck of the draw.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxlens.analysis.frontier.front import Benefit
from taxlens.analysis.frontier.plan_files import read_plan
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.weights.interpolation import mixture
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages.frontier.frontier_run import frontier_arguments


def kept_effects(folder: Path, suites: list[str]) -> dict[str, Any]:
    """The run's effects on the benefit's training items: "path", whose sum is the tax, and "gradient"."""
    found = {}
    for path in sorted(folder.glob("effects-*.npz")):
        stored = np.load(path, allow_pickle=False)
        if all(f"{suite}\teffects\tmargin" in stored.files for suite in suites):
            missed = [
                abs(stored[f"{s}\teffects\tmargin"].sum(axis=1).mean() / stored[f"{s}\ttax\tmargin"].mean() - 1)
                for s in suites
            ]
            found[max(missed)] = stored
    if len(found) < 2:
        raise SystemExit(f"{folder} holds no effects by path and by one gradient of {', '.join(suites)}")
    return {"path": found[min(found)], "gradient": found[max(found)]}


def compared(run: Run, names: list[str]) -> pd.DataFrame:
    """One row a plan: share of the benefit kept, by path, by the last gradient, and scored on the training items."""
    job = RunContext(run)
    arguments = frontier_arguments(job)
    benefit = Benefit.named(arguments["suites"], arguments["benefit"], arguments["against"])
    effects = kept_effects(run.folder / "frontier", benefit.suites)
    training = []
    for name in benefit.suites:
        ids = set(effects["path"][f"{name}\titems"].tolist())
        suite = job.suites[name]
        training.append(suite.subset([i for i, item in enumerate(suite.items) if item.id in ids]))
    measure = ChoiceMeasure(job.pair, tuple(training), template=arguments["template"], metrics=("margin",))

    def nats(model: Any) -> float:
        return sum(float(column.mean()) for column in benefit.columns(measure(model)))

    base, aligned = nats(job.pair.base.model), nats(job.pair.aligned.model)
    units = [str(unit) for unit in effects["path"][f"{benefit.suite}\tunits"]]
    rows = []
    for name in names:
        plan = read_plan(run.folder / "plans.json", name)
        coefficients = np.array([plan.undo.get(unit, 0.0) for unit in units])
        predicted = [
            1 + sum(benefit.signs[s] * (stored[f"{s}\teffects\tmargin"].mean(axis=0) @ coefficients)
                    for s in benefit.suites) / (aligned - base)
            for stored in effects.values()
        ]  # fmt: skip
        with mixture(job.pair, plan.undo) as model:
            rows.append((name, *predicted, (nats(model) - base) / (aligned - base)))
    return pd.DataFrame(rows, columns=["plan", *effects, "measured"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--plans", nargs="+", required=True)
    args = parser.parse_args()
    print(compared(Run.open(args.run), args.plans).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
