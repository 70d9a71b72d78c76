"""False alarms and power of the tests of a probe drop, by simulation.

    python benchmarks/probe_statistics.py null      # 500 pairs with nothing lost, 24 correlated layers
    python benchmarks/probe_statistics.py power     # 200 pairs with an AUC drop of .06, 150 groups
    python benchmarks/probe_statistics.py nosignal  # paraphrases without a signal, through the default call

Prints one line a quantity; docs/probes.md quotes them.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from taxlens.probes.folds import group_folds
from taxlens.probes.labels import ProbeWarning, read_labels
from taxlens.probes.linear import probe_pair
from taxlens.probes.significance import corrected_t, max_t, permutation_p
from taxlens.probes.swap import fold_differences, group_flips, swap_layer


def null_pair(rng, *, n_groups=60, size=3, d=12, layers=24, noise=0.3, literal=False):
    """Yield (X, Y) of each layer: the same hidden rows with group effects, each model with its own noise."""
    groups = np.repeat(np.arange(n_groups), size)
    y = rng.integers(0, 2, n_groups)
    y[:2] = 0, 1
    y = y[groups]
    shape = (len(groups), d)
    signal = rng.normal(size=d)
    signal /= np.linalg.norm(signal)
    state = rng.normal(size=(n_groups, d))[groups] + rng.normal(size=shape)
    noises = [rng.normal(size=shape) for _ in range(2)]
    out = []
    for layer in range(layers):
        if layer:
            state = 0.95 * state + 0.31 * (0.7 * rng.normal(size=(n_groups, d))[groups] + 0.7 * rng.normal(size=shape))
            noises = [0.95 * e + 0.31 * rng.normal(size=shape) for e in noises]
        H = state + 1.5 * np.outer(y, signal)
        X = H if literal else H + noise * noises[0]
        out.append((X, H + noise * noises[1]))
    return out, y, groups


def run_null(simulations, seed, *, literal):
    """Print the share of single-layer and family-wise rejections at .05."""
    rng = np.random.default_rng(seed)
    single, family, fallback, spread = [], [], [], []
    for number in range(simulations):
        layers, y, groups = null_pair(rng, literal=literal)
        labels = read_labels(y, groups=groups)
        folds = group_folds(groups, labels.strata(), seed=number)
        flips = group_flips(groups, permutations=99, seed=number)
        penalty = 0.1 * len(y)
        results = [swap_layer(X, Y, labels, folds, flips=flips, penalty=penalty) for X, Y in layers]
        observed = np.array([r.observed for r in results])
        null = np.stack([r.null for r in results], axis=1)
        single.append(permutation_p(observed[0], null[:, 0]) <= 0.05)
        family.append(max_t(observed, null).min() <= 0.05)
        differences = fold_differences(*layers[0], labels, folds, penalty=(penalty, penalty), repeats=10, seed=number)
        fallback.append(corrected_t(differences, n_folds=5)[1] <= 0.05)
        spread.append(observed[0])
        if (number + 1) % 50 == 0:
            _say(number + 1, literal, spread, single, family, fallback)


def _say(simulations, literal, spread, single, family, fallback):
    name = "base against base + noise" if literal else "two noisy copies of one base"
    print(f"null, {name}: {simulations} simulations, 60 groups of 3, 24 layers, mean drop {np.mean(spread):+.4f}")
    for what, hits in (("swap, one layer", single), ("swap, max-T over 24 layers", family), ("corrected t", fallback)):
        print(f"  rejections at .05, {what:<28} {100 * np.mean(hits):5.1f} %", flush=True)


def run_power(simulations, seed):
    """Print how often an AUC drop of .06 is found with 150 groups, alone and among 24 layers."""
    rng = np.random.default_rng(seed)
    found, drops, among = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        for number in range(simulations):
            groups = np.repeat(np.arange(150), 4)
            y = rng.integers(0, 2, 150)[groups]
            axis = rng.normal(size=32)
            axis /= np.linalg.norm(axis)
            H = 0.5 * rng.normal(size=(150, 32))[groups] + rng.normal(size=(600, 32))
            X = H + 1.45 * np.outer(y, axis) + 0.3 * rng.normal(size=H.shape)
            Y = H + 1.14 * np.outer(y, axis) + 0.3 * rng.normal(size=H.shape)
            result = probe_pair({0: (X, Y)}, y, groups, shuffles=0, bootstrap=100, seed=number)
            found.append(result.drops[0].p <= 0.05)
            among.append(result.drops[0].p * 24 <= 0.05)
            drops.append(result.drops[0].drop.value)
    print(f"power: {simulations} simulations, 150 groups of 4, d 32, mean AUC drop {np.mean(drops):.3f}")
    print(f"  found at .05: {100 * np.mean(found):.0f} %")


def run_nosignal(simulations, seed):
    """Print the mean AUC of a label that is not there, 50 prompts x 8 paraphrases, through the default call."""
    rng = np.random.default_rng(seed)
    by_group, by_item = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        for number in range(simulations):
            groups = np.repeat(np.arange(50), 8)
            y = rng.permutation(np.arange(50) % 2)[groups]
            X = rng.normal(size=(50, 64))[groups] + 0.5 * rng.normal(size=(400, 64))
            Y = X + 0.1 * rng.normal(size=X.shape)
            for out, how in ((by_group, groups), (by_item, "items")):
                result = probe_pair({0: (X, Y)}, y, how, permutations=0, shuffles=0, bootstrap=50, seed=number)
                out.append(result.readings["base", "base", "none"][0].value)
    print(f"no signal, 50 prompts x 8 paraphrases, {simulations} simulations:")
    print(f"  AUC by groups (default) {np.mean(by_group):.3f} (sd of one {np.std(by_group):.3f})")
    print(f"  AUC by items            {np.mean(by_item):.3f} (the leak)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["null", "literal", "power", "nosignal"])
    parser.add_argument("--simulations", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.time()
    if given.what in ("null", "literal"):
        run_null(given.simulations or 500, given.seed, literal=given.what == "literal")
    elif given.what == "power":
        run_power(given.simulations or 200, given.seed)
    else:
        run_nosignal(given.simulations or 40, given.seed)
    print(f"  {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
