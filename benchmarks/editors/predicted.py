"""What plans were predicted to do against what they did, and what `joint` costs: `python -m benchmarks.editors.predicted`.

    python -m benchmarks.editors.predicted                     # the embedded pairs; about three minutes of processor a pair
    python -m benchmarks.editors.predicted refusal

Plans are fitted on the training items of the comparison's own task and measured on its held-out items. `account`: the path
effects from base to aligned, times how far each unit is undone. `own way`: the same integral from the aligned model to the
plan itself (Gauss-Legendre), which follows a plan where the account bends. A point is a plan; the line is least squares.
Cost is processor time, one thread: all steps of `joint`, validation included, over one attribution of the same items.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.editors.embedded import ANSWER, NO_ERROR, PAIRS, embedded_measure, embedded_pair, embedded_task
from taxlens.analysis.editors.compare import compare_editors
from taxlens.analysis.editors.cost import comparison_minutes
from taxlens.analysis.editors.kinds.attributed import KEEPS, solved, unit_effects
from taxlens.analysis.editors.kinds.optimise import joint
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.frontier.plans import Units, changed_units
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.weights.gradients import first_order_loss
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from taxlens.core.artifacts import write_table
from taxlens.stages.edit.edit_section import EditSection

ITEMS, GRADIENTS, NODES = 40, 7, 3
SCALES = {"path": (0.5, 1.0), "joint": (0.25, 0.5, 0.75, 1.0)}
"""Shares of a plan's coefficients that are measured too, so that there are points all along the line."""


def points(task: EditTask) -> tuple[pd.DataFrame, float, float]:
    """One row a plan: predicted and measured tax returned (probability, all suites) and refusals of harm lost (nats).

    Returns:
        The rows; processor seconds of one attribution and of `joint`.
    """
    units = changed_units(difference_of(task.pair), task.unit)
    begun = time.process_time()
    along = unit_effects(task, units, attribute, "probability", ITEMS, max_gradients=GRADIENTS)
    attribution = time.process_time() - begun
    ends = unit_effects(task, units, gradient_effects, "margin", ITEMS)
    plans = [("path", solved(along.tax, [along, ends], keep)) for keep in KEEPS]
    begun = time.process_time()
    edits = list(joint(task, tries=3))
    cost = time.process_time() - begun
    plans += [("joint", np.array([edit.undo.get(name, 0.0) for name in units.names])) for edit in edits]
    measure = ChoiceMeasure(
        task.pair, tuple(task.held[name] for name in task.suites), template=dict(task.template),
        metrics=("probability", "margin"),
    )  # fmt: skip
    aligned = measure(task.pair.aligned.model)
    rows = []
    for editor, undone in plans:
        for scale in SCALES[editor]:
            scaled = scale * undone
            with mixture(task.pair, dict(zip(units.names, scaled.tolist(), strict=True)), level=units.level) as model:
                now = measure(model)
            own = own_way(task, units, scaled)
            row = {
                "editor": editor, "account_tax": along.tax @ scaled, "account_harm": along.harm @ scaled,
                "own_tax": own["tax"], "own_harm": own["harm"],
                "measured_tax": sum(_mean(now, s, "probability") - _mean(aligned, s, "probability") for s in task.taxed),
                "measured_harm": _mean(aligned, task.harm, "margin") - _mean(now, task.harm, "margin"),
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows), attribution, cost


def own_way(task: EditTask, units: Units, undone: np.ndarray) -> dict[str, float]:
    """What the way from the aligned model to the plan says: tax returned and refusals of harm lost, training items."""
    difference = difference_of(task.pair)
    members = [difference.unit(name, level=units.level) for name in units.names]
    at, weight = np.polynomial.legendre.leggauss(NODES)
    found = {"tax": 0.0, "harm": 0.0}
    for node, share in zip((at + 1) / 2, weight / 2, strict=True):
        undo = dict(zip(units.names, (node * undone).tolist(), strict=True))
        with mixture(task.pair, undo, difference=difference, level=units.level) as model:
            for name in (*task.taxed, task.harm):
                metric = "margin" if name == task.harm else "probability"
                suite = task.train[name]
                asked = [(suite, task.prompting(suite))]
                effect = first_order_loss(model, asked, difference, members, metric=metric)[name] @ undone
                found["harm" if name == task.harm else "tax"] += share * float(-effect if name == task.harm else effect)
    return found


def dry_run(task: EditTask) -> tuple[float, float]:
    """Processor seconds that a dry run states for the editors that a config compares by default, and what they took."""
    editors = EditSection().editors
    stated = 60 * comparison_minutes(task, editors, tries=3, answer=ANSWER)
    begun = time.process_time()
    compare_editors(task, editors, embedded_measure(task), tries=3, error=NO_ERROR)
    return stated, time.process_time() - begun


def fits(frame: pd.DataFrame) -> pd.DataFrame:
    """Slope and R2 by editor, by what predicts and by what is predicted."""
    rows = []
    for editor, part in frame.groupby("editor", sort=False):
        for by in ("account", "own"):
            for what in ("tax", "harm"):
                x, y = part[f"{by}_{what}"].to_numpy(float), part[f"measured_{what}"].to_numpy(float)
                slope, start = np.polyfit(x, y, 1)
                left = float(((y - slope * x - start) ** 2).sum() / ((y - y.mean()) ** 2).sum())
                rows.append((editor, by, what, len(x), slope, start, 1 - left))
    return pd.DataFrame(rows, columns=["editor", "by", "what", "plans", "slope", "intercept", "r2"])


def _mean(values: Mapping[str, Mapping[str, np.ndarray]], suite: str, metric: str) -> float:
    return float(values[suite][metric].mean())


def main() -> None:
    """Measure the named embedded pairs and print slope, R2 and cost of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/editors/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.pairs:
        task = embedded_task(embedded_pair(name))
        frame, attribution, cost = points(task)
        write_table(frame, args.out / f"{name}-predicted.csv")
        found = fits(frame).assign(pair=name, attribution_s=attribution, joint_s=cost, cost=cost / attribution)
        write_table(found, args.out / f"{name}-predicted-fit.csv")
        print(f"{name}: joint {cost:.1f} s, one attribution {attribution:.1f} s, {cost / attribution:.2f} times")
        print(found.to_string(index=False), flush=True)
        stated, took = dry_run(task)
        print(f"{name}: a dry run states {stated:.0f} s, it took {took:.0f} s, {stated / took:.2f} times", flush=True)


if __name__ == "__main__":
    main()
