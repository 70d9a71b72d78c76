"""Seeded choices among items, made one way everywhere: which wrong choice stands against gold, and which items are taken."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from taxlens.activations.items.items import Item, Suite


def draw_foil(suite: str, item: Item, seed: int) -> int:
    """Return the wrong choice that stands against gold: the same for the same seed, suite name and item id."""
    digest = hashlib.sha256(f"{seed}\n{suite}\n{item.id}".encode()).digest()
    wrong = [number for number in range(len(item.choices)) if number not in item.right]
    return wrong[int(np.random.default_rng(int.from_bytes(digest[:8], "big")).integers(len(wrong)))]


def at_most(suite: Suite, items: int | str, *, seed: int = 0) -> Suite:
    """Return a suite of at most so many items, spread over as many groups as there are, in their order.

    Groups take turns in seeded order, each giving one of its items (in seeded order) a turn, so that a small
    sample still has many groups: intervals come from groups, and whole groups would leave few.

    Args:
        suite: the items.
        items: "all", or how many.
        seed: of the order.
    """
    if items == "all" or len(suite) <= int(items):
        return suite
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(suite))
    names, codes = np.unique(suite.groups.astype(str), return_inverse=True)
    turn = np.empty(len(suite), dtype=np.int64)
    given = np.zeros(len(names), dtype=np.int64)
    for place in order:
        turn[place] = given[codes[place]]
        given[codes[place]] += 1
    rank = rng.permutation(len(names))
    chosen = np.lexsort((rank[codes], turn))[: int(items)]
    return suite.subset(np.sort(chosen))
