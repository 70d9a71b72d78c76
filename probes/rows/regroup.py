"""Rows into partners of other groups."""

from __future__ import annotations

import numpy as np


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
