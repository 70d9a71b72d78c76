"""How fast a tax comes back when components are undone in the order that a method gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def deletion_curve(table: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Share of the tax returned after undoing the first 1, 2, ... players of an order.

    Args:
        table: value of every coalition [2**players]; bit i says whether player i has its change.
        order: players, the first to undo first.

    Returns:
        [players]; the last is 1.
    """
    everyone = len(table) - 1
    left, curve = everyone, []
    for player in order:
        left &= ~(1 << player)
        curve.append((table[left] - table[everyone]) / (table[0] - table[everyone]))
    return np.array(curve)


def deletion_skill(table: np.ndarray, effects: Mapping[str, float], players: Sequence[str]) -> float:
    """Area under a method's deletion curve, between that of random orders (0) and of the best order (1).

    Both ends are exact: the mean over all orders, and the best order found by going through all coalitions. It is
    negative for an order worse than a random one.

    Args:
        table: value of every coalition of the players.
        effects: player to what a method says of it; absent is 0. Ties keep the network's order.
        players: names, by bit.

    Example:
        >>> table = np.array([1.0, 1.0, 0.0, 0.0])  # only the second player harms
        >>> deletion_skill(table, {"second": 0.9, "first": 0.1}, ["first", "second"])
        1.0
    """
    order = np.argsort([-effects.get(name, 0.0) for name in players], kind="stable")
    area, (chance, best) = float(deletion_curve(table, order.tolist()).mean()), _ends(table, len(players))
    return (area - chance) / (best - chance) if best - chance > 1e-9 else float("nan")


def _ends(table: np.ndarray, players: int) -> tuple[float, float]:
    """Mean area over all orders, and the largest."""
    everyone = len(table) - 1
    returned = (table - table[everyone]) / (table[0] - table[everyone])
    sizes = np.array([bin(left).count("1") for left in range(len(table))])
    chance = float(np.mean([returned[sizes == players - undone].mean() for undone in range(1, players + 1)]))
    best = np.full(len(table), -np.inf)
    best[everyone] = 0.0
    for left in range(everyone, 0, -1):
        for player in range(players):
            if left >> player & 1:
                after = left & ~(1 << player)
                best[after] = max(best[after], best[left] + returned[after])
    return chance, float(best[0]) / players
