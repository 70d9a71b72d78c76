"""Path effects against exact Shapley values on an embedded pair: correlation, and whether the leading ranks are told apart.

    python -m benchmarks.accuracy.attribution_agreement [--pair planted] [--suite facts] [--items 64]

All 2^n grafts of the n changed components are scored (n <= 10), and the path is walked on the same items. Printed for
each metric: Pearson correlation, L1 distance over the tax, the three largest of both, and for each pair of neighbours
in the Shapley ranking of the first four the bootstrap interval (groups drawn again) of their difference in both
methods: where it holds zero, the items do not tell them apart.
"""

from __future__ import annotations

import argparse

import numpy as np

from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.pair import load_pair
from taxlens.analysis.interventions.shapley import shapley_effects
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.core.stats.intervals import mean_interval
from taxlens.demo import resolve
from taxlens.inputs.resolve import resolve_suite

METRICS = ("probability", "accuracy", "nll", "margin")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="planted")
    parser.add_argument("--suite", default="facts")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--draws", type=int, default=4000)
    asked = parser.parse_args()
    pair = load_pair(resolve("demo:base"), resolve(f"demo:{asked.pair}"))
    suite = at_most(resolve_suite(asked.suite, f"demo:{asked.suite}", kind="capability", root="."), asked.items)
    path = attribute(pair, suite, metrics=METRICS, levels=("component",), tokens=False, perplexity=False)
    exact = shapley_effects(pair, ChoiceMeasure(pair, (suite,)), groups={suite.name: suite.groups})
    print(
        f"{asked.pair} {asked.suite}: {len(suite)} items, {path.suites[suite.name].gradients} gradients, {exact.forwards} forwards"
    )
    for metric in METRICS:
        names, mine = path.effects(suite.name, metric)
        order = [list(exact.units).index(name) for name in names]
        other = exact.values[suite.name, metric][:, order]
        tax = float(exact.taxes[suite.name, metric].mean())
        means = mine.mean(axis=0), other.mean(axis=0)
        first = [np.argsort(-np.abs(mean), kind="stable")[:4] for mean in means]
        print(
            f"{metric}: tax {tax:+.4f}, Pearson {np.corrcoef(*means)[0, 1]:.4f}, L1 {np.abs(means[0] - means[1]).sum() / abs(tax):.3f}"
        )
        for label, mean, ranks in zip(("path", "Shapley"), means, first):
            print(f"  {label:8s}" + ", ".join(f"{names[i]} {mean[i]:+.4f}" for i in ranks))
        for a, b in zip(first[1][:3], first[1][1:4]):
            for label, values in (("path", mine), ("Shapley", other)):
                sign = np.sign(values[:, a].mean()) * values[:, a] - np.sign(values[:, b].mean()) * values[:, b]
                span = mean_interval(sign, suite.groups, draws=asked.draws, seed=0)
                print(
                    f"    {label:8s}|{names[a]}| - |{names[b]}|: {span.value:+.4f} [{span.low:+.4f}, {span.high:+.4f}]"
                )


if __name__ == "__main__":
    main()
