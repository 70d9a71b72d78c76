"""Do the intervals cover, and how often do the tests cry wolf? Simulated paired suites with group effects.

    python -m benchmarks.stats_coverage [--suites 500]

Prints coverage of the nominal 95 % intervals and false alarms at .05, by design.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from taxlens.analysis.power import PairedModel
from taxlens.core import stats

DESIGNS = {
    "10 groups of 10": PairedModel(n_groups=10),
    "20 groups of 10": PairedModel(n_groups=20),
    "40 groups of 10": PairedModel(n_groups=40),
    "100 groups of 4": PairedModel(n_groups=100, group_size=4),
    "200 single items": PairedModel(n_groups=200, group_size=0.0, group_model=0.0),
    "40 groups, rare": PairedModel(n_groups=40, mean=2.5, shift=0.5),
}


def coverage(model: PairedModel, *, suites: int, method: str) -> float:
    """Share of simulated suites whose interval holds the population's tax."""
    held = 0
    for seed in range(suites):
        base, aligned, groups = model.draw(seed)
        held += not stats.mean_interval(base - aligned, groups, draws=1000, method=method).excludes(model.tax)
    return held / suites


def false_alarms(model: PairedModel, *, suites: int) -> dict[str, float]:
    """Share of null suites (exchangeable models) that each test calls a tax at .05."""
    null = PairedModel(**{f: getattr(model, f) for f in model.__slots__} | {"shift": 0.0})
    alarms = {"bca": 0, "percentile": 0, "mcnemar": 0, "sign_flip": 0}
    for seed in range(suites):
        base, aligned, groups = null.draw(seed)
        loss = base - aligned
        for method in ("bca", "percentile"):
            alarms[method] += stats.mean_interval(loss, groups, draws=1000, method=method).excludes(0.0)
        alarms["mcnemar"] += stats.mcnemar_exact(int((loss > 0).sum()), int((loss < 0).sum())) < 0.05
        alarms["sign_flip"] += stats.sign_flip_p(loss, groups, draws=999) < 0.05
    return {name: count / suites for name, count in alarms.items()}


def main() -> None:
    """Print one row a design."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", type=int, default=500)
    suites = parser.parse_args().suites
    start = time.perf_counter()
    print(f"{suites} suites a cell; coverage of 95 % intervals | false alarms at .05")
    print(f"{'design':18} {'tax':>6} {'BCa':>6} {'perc.':>6} | {'BCa':>6} {'perc.':>6} {'McNemar':>8} {'flip':>6}")
    for name, model in DESIGNS.items():
        held = [coverage(model, suites=suites, method=method) for method in ("bca", "percentile")]
        wolf = false_alarms(model, suites=suites)
        print(
            f"{name:18} {model.tax:6.3f} {held[0]:6.3f} {held[1]:6.3f} | {wolf['bca']:6.3f} "
            f"{wolf['percentile']:6.3f} {wolf['mcnemar']:8.3f} {wolf['sign_flip']:6.3f}"
        )
    print(f"{time.perf_counter() - start:.0f} s; standard error of a rate of .05: {np.sqrt(0.05 * 0.95 / suites):.3f}")


if __name__ == "__main__":
    main()
