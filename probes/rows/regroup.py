"""Groups into folds, and rows into unrelated partners."""

from __future__ import annotations

import numpy as np


def assign_folds(group_of: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold [n] of each row such that no group is split and folds are about equal in rows.

    Groups are put, largest first and in seeded order among equals, into the fold with fewest rows.

    Args:
        group_of: [n] group of each row as a number from 0.
        folds: number of folds; with fewer groups there is one fold a group.
        seed: of the order among groups of equal size.
    """
    sizes = np.bincount(group_of)
    folds = min(folds, len(sizes))
    shuffled = np.random.default_rng([seed, 0]).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of_group = np.zeros(len(sizes), dtype=np.int64)
    rows = np.zeros(max(folds, 1))
    for group in order:
        emptiest = int(np.argmin(rows))
        fold_of_group[group] = emptiest
        rows[emptiest] += sizes[group]
    return fold_of_group[group_of]


def unrelated_partner(group: np.ndarray, rng: np.random.Generator, *, tries: int = 20) -> np.ndarray:
    """Return a random permutation [k] of rows that pairs no row with its own group where that is possible.

    Args:
        group: [k] group of each row.
        rng: seeded generator.
        tries: rounds in which rows that met their own group change places with random others.
    """
    partner = rng.permutation(len(group))
    for _ in range(tries):
        met = np.flatnonzero(group[partner] == group)
        if not len(met):
            break
        for row, other in zip(met, rng.integers(0, len(group), size=len(met))):
            partner[row], partner[other] = partner[other], partner[row]
    return partner
