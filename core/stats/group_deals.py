"""Whole groups dealt to parts of stated sizes: halves of a suite, folds of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def deal_groups(group_of: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the part [n] of each row such that no group is split and parts are about as large as wanted.

    Groups are dealt one by one, largest first and in drawn order among equals, each to the part that lacks most rows.

    Args:
        group_of: [n] group of each row as a number from 0.
        shares: wanted share of the rows in each part.
        rng: of the order among groups of equal size.

    Example:
        >>> deal_groups(np.array([0, 0, 0, 1, 2, 2]), (0.5, 0.5), np.random.default_rng(0)).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    sizes = np.bincount(group_of)
    shuffled = rng.permutation(len(sizes))
    wanted, given = np.asarray(shares, dtype=np.float64) * len(group_of), np.zeros(len(shares), dtype=np.int64)
    part_of = np.zeros(len(sizes), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part = int(np.argmax(wanted - given))
        part_of[group] = part
        given[part] += sizes[group]
    return part_of[group_of]
