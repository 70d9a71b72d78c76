"""What pairing is worth: the standard error of a tax when items are paired, against two models compared by their means.

    python -m benchmarks.accuracy.paired_errors [--template plain] [--metric accuracy] [--base DIR --adapter DIR --suites FILE ...]

Four errors a suite: of paired differences and of two independent means, each clustered by group and with items taken as
independent. `ratio` is unpaired over paired, both clustered: how much wider the same claim is without pairing. Suites in
which no item changed are left out. Without `--base`, the embedded pairs.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import taxlens
from taxlens.analysis.tax.ledger import Paired
from taxlens.core.stats.intervals import cluster_standard_error
from taxlens.demo import catalogue


def errors(aligned: str, paired: Paired, metric: str) -> dict[str, object]:
    """The four standard errors of one suite."""
    single, groups = np.arange(len(paired.items)), paired.groups
    found: dict[str, object] = {
        "pair": aligned.removeprefix("configs/"),
        "suite": paired.suite,
        "base": paired.base[metric].mean(),
        "tax": paired.loss(metric).mean(),
    }
    for name, by in (("clustered", groups), ("items", single)):
        sides = [cluster_standard_error(side[metric], by) for side in (paired.base, paired.aligned)]
        found[f"paired, {name}"] = cluster_standard_error(paired.loss(metric), by)
        found[f"unpaired, {name}"] = float(np.hypot(*sides))
    return found


def main() -> None:
    """Print a row a pair and suite, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default="plain")
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--base")
    parser.add_argument("--adapter")
    parser.add_argument("--suites", nargs="+", default=[])
    given = parser.parse_args()
    if given.base:
        suites = [taxlens.suite(file) for file in given.suites]
        pairs = [(given.adapter, taxlens.load_pair(given.base, adapter=given.adapter))]
    else:
        suites = [taxlens.suite(name) for name in catalogue.suite_names() if "harm" not in name]
        names = [name for name in catalogue.model_names() if name != "demo:base"]
        pairs = [(name, taxlens.load_pair("demo:base", name)) for name in names]
    rows = []
    for name, pair in pairs:
        tax = pair.tax(suites, templates=(given.template,), metrics=("accuracy", given.metric), bootstrap=100)
        rows += [errors(name, paired, given.metric) for paired in tax.measured if paired.loss(given.metric).any()]
    frame = pd.DataFrame(rows)
    frame["ratio"] = frame["unpaired, clustered"] / frame["paired, clustered"]
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    found = frame["ratio"]
    print(
        f"unpaired over paired: median {np.median(found):.2f}, {found.min():.2f} to {found.max():.2f}, n={len(found)}"
    )


if __name__ == "__main__":
    main()
