"""Exact Shapley values of components: every coalition is run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import numpy as np

from benchmarks.truth.plants.parts import Weights, select


def coalition_values(
    base: Weights, change: Weights, parts: Sequence[str], value: Callable[[Weights], np.ndarray]
) -> np.ndarray:
    """The value of base plus the change of every subset of components.

    Args:
        base: base weights.
        change: aligned minus base.
        parts: the players; parameters of no player stay as in the base.
        value: figures of a set of weights (one number or an array).

    Returns:
        Array [2**players, ...]; bit i of the index says whether player i is in.
    """
    shares = [select(change, [part]) for part in parts]
    found = []
    for coalition in range(2 ** len(parts)):
        weights = dict(base)
        for i, share in enumerate(shares):
            if coalition >> i & 1:
                for name, moved in share.items():
                    weights[name] = base[name] + moved
        found.append(value(weights))
    return np.array(found)


def shapley(values: np.ndarray, players: int) -> np.ndarray:
    """Exact Shapley values from all coalitions' values.

    Args:
        values: [2**players, ...] as `coalition_values` gives them.
        players: number of players.

    Returns:
        [players, ...]; sums to the value of all minus the value of none.

    References:
        Shapley 1953, "A value for n-person games".
    """
    index = np.arange(2**players)
    size = np.array([bin(i).count("1") for i in index])
    weight = np.array(
        [
            factorial(s) * factorial(players - 1 - s) / factorial(players) if s < players else 0
            for s in range(players + 1)
        ]
    )
    shares = []
    for player in range(players):
        without = index[(index >> player & 1) == 0]
        gain = values[without | 1 << player] - values[without]
        shares.append(np.tensordot(weight[size[without]], gain, axes=(0, 0)))
    return np.array(shares)
