"""Whether a restored checkpoint gives its plan's measured numbers again: `python -m benchmarks.accuracy.restored RUN CHECKPOINT`.

The checkpoint (or LoRA adapter) is opened from disk and scored on the run's own held-out items.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from taxlens.activations.models.loading import load_model
from taxlens.activations.models.pair import load_pair
from taxlens.analysis.frontier.front import Benefit
from taxlens.analysis.frontier.measure import frontier_work
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages.frontier import FRONTIER_STAGE
from taxlens.stages.frontier.frontier_run import frontier_arguments


def compared(run: Run, checkpoint: Path) -> pd.DataFrame:
    """Each taxed suite and the benefit as the plan was measured, and as the checkpoint from disk gives them."""
    facts = json.loads((checkpoint / "taxlens_restoration.json").read_text(encoding="utf-8"))
    job, measured = RunContext(run), facts["measured"]
    arguments = frontier_arguments(job, job.config.of(FRONTIER_STAGE))
    suites = arguments.pop("suites")
    benefit = Benefit.named(suites, arguments["benefit"], arguments["against"])
    plans = run.table("frontier").plan.nunique()
    work = frontier_work(job.pair, suites, **arguments)
    held = work.held_suites([*measured["suites"], *work.benefit.suites], plans)
    measure = ChoiceMeasure(
        job.pair, tuple(held), template=arguments["template"], metrics=(measured["metric"], "margin")
    )
    if (checkpoint / "adapter_config.json").is_file():
        opened = load_pair(job.pair.base.source, adapter=checkpoint).aligned.model
    else:
        opened = load_model(checkpoint).model
    values = measure(opened)
    rows = [
        (name, measured["metric"], one["restored"], float(values[name][measured["metric"]].mean()))
        for name, one in measured["suites"].items()
    ]
    nats = sum(float(column.mean()) for column in benefit.columns(values))
    rows.append((" - ".join(benefit.suites), "benefit, nats", measured["benefit_nats"]["value"], nats))
    frame = pd.DataFrame(rows, columns=["suite", "metric", "plan", "checkpoint"])
    return frame.assign(difference=(frame.plan - frame.checkpoint).abs())


def main() -> None:
    """Print both sets of numbers and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    frame = compared(Run.open(args.run), args.checkpoint)
    print(frame.to_string(index=False))
    print(f"largest difference: {frame.difference.max():.1e}")


if __name__ == "__main__":
    main()
