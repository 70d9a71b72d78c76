"""Speed of probing a pair, beside a scikit-learn loop over the same folds and penalties in the same run.

python benchmarks/speed/speed_probes.py          # both, each in a process of its own
python benchmarks/speed/speed_probes.py probes   # 30 layers x 576 dims x 20,000 rows, nested penalties, four-way table
python benchmarks/speed/speed_probes.py swaps    # 999 swap-and-refit permutations, 30 layers, 2,000 items in 300 groups

As many threads as the machine has cores (OMP_NUM_THREADS limits them). Probes run two layers at once, a thread each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import warnings
from functools import lru_cache

import numpy as np

from taxlens.probes.kinds.ridge import PENALTIES
from taxlens.probes.pair.probe_pair import probe_pair
from taxlens.probes.rows.folds import group_folds
from taxlens.probes.rows.labels import ProbeWarning, read_labels


@lru_cache(maxsize=2)
def drawn(n, d):
    """Return two [n, d] arrays of standard normal numbers, float32."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d), dtype=np.float32), rng.standard_normal((n, d), dtype=np.float32)


def one_layer(layer, n, d, y):
    """Return (X, Y) of a layer with a falling spectrum, made anew so that few layers are in memory."""
    scale = np.random.default_rng(layer).permutation(np.arange(1, d + 1, dtype=np.float32) ** -0.5)
    first, second = drawn(n, d)
    X = first * scale
    X[:, 5] += np.float32(0.3) * y
    return X, X + np.float32(0.1) * scale * second


def run_probes(layers, n, d, group_size, oracle):
    """Print the seconds of probe_pair and of scikit-learn's RidgeClassifierCV on the same folds."""
    groups = np.arange(n) // group_size
    y = np.random.default_rng(0).integers(0, 2, groups.max() + 1)[groups]
    one_layer(0, n, d, y)
    stream = lambda: ((layer, *one_layer(layer, n, d, y)) for layer in range(layers))  # noqa: E731
    start, cpu = time.perf_counter(), time.process_time()
    result = probe_pair(stream, y, groups, permutations=0, shuffles=0)
    ours, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"probe_pair: {layers} layers x {d} x {n} rows, groups of {group_size}: {ours:.1f} s, peak {peak:.2f} GB")
    print(f"  processor time {cpu:.1f} s, all threads")
    print(f"  {result}")
    if not oracle:
        return
    from sklearn.linear_model import RidgeClassifierCV

    labels = read_labels(y, groups=groups)
    folds = group_folds(groups, labels.strata())
    X, Y = one_layer(0, n, d, y)
    start, theirs_cpu = time.perf_counter(), time.process_time()
    for Z, other in ((X, Y), (Y, X)):
        for train, test in folds:
            unit = ((Z[train] - Z[train].mean(0)) ** 2).sum() / d
            fitted = RidgeClassifierCV(alphas=[p * unit for p in PENALTIES]).fit(Z[train].astype(np.float64), y[train])
            fitted.decision_function(Z[test])
            fitted.decision_function(other[test])
    theirs, theirs_cpu = (time.perf_counter() - start) * layers, (time.process_time() - theirs_cpu) * layers
    print(f"RidgeClassifierCV loop, same folds and penalties (one layer x {layers}): {theirs:.1f} s")
    print(f"  ratio {theirs / ours:.1f} x by the clock, {theirs_cpu / cpu:.1f} x in processor time")


def run_swaps(layers, permutations):
    """Print the seconds that swap-and-refit permutations add over all layers."""
    rng = np.random.default_rng(0)
    groups = np.sort(np.r_[np.arange(300), rng.integers(0, 300, 1700)])
    y = rng.integers(0, 2, 300)[groups]
    data = {layer: one_layer(layer, 2000, 576, y) for layer in range(layers)}
    clock = time.perf_counter(), time.process_time()
    probe_pair(data, y, groups, permutations=0)
    middle = time.perf_counter(), time.process_time()
    result = probe_pair(data, y, groups, permutations=permutations)
    end = time.perf_counter(), time.process_time()
    without, both = middle[0] - clock[0], end[0] - middle[0]
    cpu = (end[1] - middle[1]) - (middle[1] - clock[1])
    print(f"swaps: {permutations} permutations, {layers} layers, 2,000 items in 300 groups: {both - without:.1f} s")
    print(f"  processor time {cpu:.1f} s, all threads")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  the whole call, {permutations} permutations included: {both:.1f} s, peak {peak:.2f} GB; {result}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["probes", "swaps"])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dims", type=int, default=576)
    parser.add_argument("--group-size", type=int, default=5)
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--no-oracle", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ProbeWarning)
    if given.what is None:
        for what in ("probes", "swaps"):
            subprocess.run([sys.executable, __file__, what, *sys.argv[1:]], check=True)
    elif given.what == "probes":
        run_probes(given.layers, given.rows, given.dims, given.group_size, not given.no_oracle)
    else:
        run_swaps(given.layers, given.permutations)


if __name__ == "__main__":
    main()
