"""Do the intervals cover, and how often do the tests cry wolf? Simulated paired suites with group effects.

    python -m benchmarks.accuracy.stats_coverage [--suites 2000] [--out coverage.csv]

Prints, by design, the coverage of nominal 95 % intervals and the false alarms at .05: over all suites, and the
lowest and highest of the blocks of 500 among them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy.paired_model import PairedModel
from taxlens.core.stats import intervals as stats

DESIGNS = {
    "10 groups of 10": PairedModel(n_groups=10),
    "20 groups of 10": PairedModel(n_groups=20),
    "40 groups of 10": PairedModel(n_groups=40),
    "100 groups of 4": PairedModel(n_groups=100, group_size=4),
    "200 single items": PairedModel(n_groups=200, group_size=0.0, group_model=0.0),
    "40 groups, few changes": PairedModel(n_groups=40, mean=2.5, shift=0.5),
}
BLOCK = 500
DRAWS = 1000


def coverage(model: PairedModel, *, seeds: range) -> dict[str, np.ndarray]:
    """Whether the interval of each simulated suite holds the population's tax, {method: [suites]}."""
    held: dict[str, list[bool]] = {method: [] for method in stats.METHODS}
    for seed in seeds:
        base, aligned, groups = model.draw(seed)
        for method, found in held.items():
            interval = stats.mean_interval(base - aligned, groups, draws=DRAWS, method=method)
            found.append(not interval.excludes(model.tax))
    return {f"coverage, {method}": np.array(found) for method, found in held.items()}


def false_alarms(model: PairedModel, *, seeds: range) -> dict[str, np.ndarray]:
    """Whether each test calls a tax at .05 in a null suite (exchangeable models), {test: [suites]}."""
    null = replace(model, shift=0.0)
    alarms: dict[str, list[bool]] = {name: [] for name in (*stats.METHODS, "McNemar", "group sign flip")}
    for seed in seeds:
        base, aligned, groups = null.draw(seed)
        loss = base - aligned
        for method in stats.METHODS:
            alarms[method].append(stats.mean_interval(loss, groups, draws=DRAWS, method=method).excludes(0.0))
        alarms["McNemar"].append(stats.mcnemar_exact(int((loss > 0).sum()), int((loss < 0).sum())) < 0.05)
        alarms["group sign flip"].append(stats.sign_flip_p(loss, groups, draws=999) < 0.05)
    return {f"alarms, {name}": np.array(found) for name, found in alarms.items()}


def rows(design: str, found: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """A row a rate: over all suites, and the lowest and highest block."""
    table = []
    for name, values in found.items():
        blocks = [part.mean() for part in np.array_split(values, max(1, len(values) // BLOCK))]
        table.append(
            {"design": design, "rate": name, "value": values.mean(), "lowest": min(blocks), "highest": max(blocks)}
        )
    return table


def main() -> None:
    """Print a row a design and rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start, table = time.perf_counter(), []
    for place, (name, model) in enumerate(DESIGNS.items()):
        seeds = range(place * 100_000, place * 100_000 + given.suites)
        table += rows(name, coverage(model, seeds=seeds) | false_alarms(model, seeds=seeds))
    frame = pd.DataFrame(table)
    if given.out:
        frame.to_csv(given.out, index=False)
    frame["shown"] = [f"{r.value:.3f} ({r.lowest:.3f}-{r.highest:.3f})" for r in frame.itertuples()]
    wide = frame.pivot(index="design", columns="rate", values="shown").loc[
        list(DESIGNS), list(dict.fromkeys(frame.rate))
    ]
    print(f"{given.suites} suites a cell; in brackets the lowest and highest of its blocks of {BLOCK}")
    for column in wide:
        print(f"\n{column}\n" + "\n".join(f"  {design:24} {value}" for design, value in wide[column].items()))
    print(f"\n{time.perf_counter() - start:.0f} s; standard error of a rate of .05 over {BLOCK}: .010")


if __name__ == "__main__":
    main()
