"""False alarms and power of the tests of a probe drop, by simulation.

    python benchmarks/accuracy/probe_statistics.py null      # 500 pairs with nothing lost, 24 correlated layers
    python benchmarks/accuracy/probe_statistics.py literal   # the same, base against base + noise
    python benchmarks/accuracy/probe_statistics.py power     # 200 pairs with an AUC drop of .06, 150 groups
    python benchmarks/accuracy/probe_statistics.py nosignal  # 300 sets of paraphrases without a signal, the default call

Each simulation is seeded by its number and kept in .cache/probe_statistics/WHAT.jsonl: a run that was stopped goes
on where it was, and a finished one only prints. docs/probes.md quotes the lines.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from taxlens.probes.pair.probe_pair import probe_pair
from taxlens.probes.pair.significance import corrected_t, max_t, permutation_p
from taxlens.probes.pair.swap import fold_differences, group_flips, swap_layer
from taxlens.probes.rows.folds import group_folds
from taxlens.probes.rows.labels import ProbeWarning, read_labels

FOLDER = Path(".cache/probe_statistics")
LAYERS = 24


def null_pair(rng, *, noise, literal, n_groups=60, size=3, d=12):
    """Return ([(X, Y)] by layer, labels, groups): the same hidden rows with group effects, each model its own noise."""
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
    for layer in range(LAYERS):
        if layer:
            state = 0.95 * state + 0.31 * (0.7 * rng.normal(size=(n_groups, d))[groups] + 0.7 * rng.normal(size=shape))
            noises = [0.95 * e + 0.31 * rng.normal(size=shape) for e in noises]
        H = state + 1.5 * np.outer(y, signal)
        X = H if literal else H + noise * noises[0]
        out.append((X, H + noise * noises[1]))
    return out, y, groups


def simulate_null(number: int, *, literal: bool = False) -> dict[str, float]:
    """Return one simulation: p of the first layer, least adjusted p of all, p of the corrected t, the drop."""
    rng = np.random.default_rng([5, number])
    layers, y, groups = null_pair(rng, noise=0.3, literal=literal)
    labels = read_labels(y, groups=groups)
    folds = group_folds(groups, labels.strata(), seed=number)
    flips = group_flips(groups, permutations=199, seed=number)
    penalty = 0.1 * len(y)
    results = [swap_layer(X, Y, labels, folds, flips=flips, penalty=penalty) for X, Y in layers]
    observed = np.array([r.observed for r in results])
    null = np.stack([r.null for r in results], axis=1)
    differences = fold_differences(*layers[0], labels, folds, penalty=(penalty, penalty), repeats=10, seed=number)
    return {
        "one_layer": permutation_p(observed[0], null[:, 0]),
        "max_t": float(max_t(observed, null).min()),
        "corrected_t": corrected_t(differences, n_folds=5)[1],
        "drop": float(observed[0]),
    }


def simulate_power(number: int) -> dict[str, float]:
    """Return one simulation of an AUC drop of about .06 with 150 groups of 4, through the default call."""
    rng = np.random.default_rng([6, number])
    groups = np.repeat(np.arange(150), 4)
    y = rng.integers(0, 2, 150)[groups]
    axis = rng.normal(size=32)
    axis /= np.linalg.norm(axis)
    H = 0.5 * rng.normal(size=(150, 32))[groups] + rng.normal(size=(600, 32))
    X = H + 1.45 * np.outer(y, axis) + 0.3 * rng.normal(size=H.shape)
    Y = H + 1.16 * np.outer(y, axis) + 0.3 * rng.normal(size=H.shape)
    drop = probe_pair({0: (X, Y)}, y, groups, shuffles=0, bootstrap=100, seed=number).drops[0]
    return {"p": drop.p, "drop": drop.drop.value}


def simulate_nosignal(number: int) -> dict[str, float]:
    """Return the AUC of a label that is not there, 50 prompts x 8 paraphrases: default call, and folds of items."""
    rng = np.random.default_rng([7, number])
    groups = np.repeat(np.arange(50), 8)
    y = rng.permutation(np.arange(50) % 2)[groups]
    X = rng.normal(size=(50, 64))[groups] + 0.5 * rng.normal(size=(400, 64))
    Y = X + 0.1 * rng.normal(size=X.shape)
    found = {}
    for name, how in (("by_groups", groups), ("by_items", "items")):
        result = probe_pair({0: (X, Y)}, y, how, permutations=0, shuffles=0, bootstrap=50, seed=number)
        found[name] = result.readings["base", "base", "none"][0].value
    return found


def tell_null(rows: dict[str, np.ndarray]) -> None:
    """Print the shares of rejections at .05."""
    print(f"  60 groups of 3, d 12, {LAYERS} layers, mean drop {rows['drop'].mean():+.4f}; rejections at .05:")
    for name in ("one_layer", "max_t", "corrected_t"):
        share = (rows[name] <= 0.05).mean()
        error = np.sqrt(share * (1 - share) / len(rows[name]))
        print(f"  {name:<12} {100 * share:5.1f} % (standard error {100 * error:.1f})")


def tell_power(rows: dict[str, np.ndarray]) -> None:
    """Print how often the drop was found."""
    print(f"  150 groups of 4, d 32, mean AUC drop {rows['drop'].mean():.3f}")
    print(f"  found at .05: {100 * (rows['p'] <= 0.05).mean():.1f} %")


def tell_nosignal(rows: dict[str, np.ndarray]) -> None:
    """Print mean AUCs and their standard errors."""
    for name, values in rows.items():
        error = values.std(ddof=1) / np.sqrt(len(values))
        print(f"  AUC {name:<10} {values.mean():.3f} (standard error {error:.3f}, sd of one {values.std(ddof=1):.3f})")


WHAT: dict[str, tuple[int, Callable[[int], dict[str, float]], Callable[[dict[str, np.ndarray]], None]]] = {
    "null": (500, simulate_null, tell_null),
    "literal": (500, lambda number: simulate_null(number, literal=True), tell_null),
    "power": (200, simulate_power, tell_power),
    "nosignal": (300, simulate_nosignal, tell_nosignal),
}


def main() -> None:
    """Simulate what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--simulations", type=int)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    default, simulate, tell = WHAT[given.what]
    wanted = given.simulations or default
    kept = given.folder / f"{given.what}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = len(kept.read_text(encoding="utf-8").splitlines()) if kept.is_file() else 0
    warnings.simplefilter("ignore", ProbeWarning)
    with kept.open("a", encoding="utf-8") as file:
        for number in range(done, wanted):
            file.write(json.dumps(simulate(number)) + "\n")
            file.flush()
    found = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()[:wanted]]
    print(f"{given.what}: {len(found)} simulations")
    tell({name: np.array([one[name] for one in found]) for name in found[0]})


if __name__ == "__main__":
    main()
