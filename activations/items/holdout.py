"""Two halves of a suite that share neither a group nor a gold answer, and a report of what they share still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxlens.core.errors import ItemError, explain, one_of
from taxlens.core.stats.group_deals import deal_groups
from taxlens.core.vocabularies import SPLIT_KEYS

if TYPE_CHECKING:
    from taxlens.activations.items.items import Item, Suite

_TRIES = 200
"""Seeded cuts that are tried where groups and answers hang together."""

_LEAST = 0.5
"""Smallest share of items that a cut in both keys may keep; else the suite is split by group alone."""


@dataclass(frozen=True, slots=True, eq=False)
class SuiteSplit:
    """One suite's halves, as indices into its items, and what keeps them apart.

    Args:
        suite: the suite's name.
        train: indices that plans are chosen on.
        held: indices that plans are measured on.
        dropped: indices in neither half, because their group and answer fell on different sides.
        keys: what the halves are disjoint in ("group", "gold").
    """

    suite: str
    train: np.ndarray
    held: np.ndarray
    dropped: np.ndarray
    keys: tuple[str, ...]

    @property
    def held_out(self) -> str:
        """What is new in the held-out half: "answers" where no gold answer is shared, else "items"."""
        return "answers" if "gold" in self.keys else "items"


def split_suite(
    suite: Suite,
    *,
    holdout: float = 0.5,
    disjoint: Sequence[str] = SPLIT_KEYS,
    seed: int = 0,
    least: int = 4,
) -> SuiteSplit:
    """Split a suite's items with choices into two halves that share neither group nor gold answer.

    Items are linked when they share a key, and linked items stay together. Where that leaves one lump, groups
    and answers are each dealt to a side and items whose two sides differ are dropped; where even that would
    drop more than half of the items (an answer that every item shares), the halves are disjoint in group alone,
    and `keys` says so.

    Args:
        suite: the items.
        holdout: wanted share of items in the held-out half.
        disjoint: what to keep apart, of "group" and "gold"; group is always kept apart.
        seed: of the deal.
        least: fewest items in either half.

    Returns:
        The halves.

    Raises:
        ItemError: too few items or groups to split.

    Example:
        >>> from taxlens.activations.items.items import Item, Suite
        >>> items = [Item(str(i), str(i // 2), "?", choices=(f" {i}", " x"), gold=0) for i in range(16)]
        >>> halves = split_suite(Suite("toy", tuple(items)), seed=1)
        >>> len(halves.train), len(halves.held), halves.held_out
        (8, 8, 'answers')
    """
    for key in disjoint:
        one_of(key, SPLIT_KEYS, what="split key")
    places = np.array([i for i, item in enumerate(suite.items) if item.choices], dtype=np.int64)
    items = [suite.items[i] for i in places]
    groups = _codes([item.group for item in items])
    golds = _codes([gold_text(item) for item in items])
    rng = np.random.default_rng(seed)
    side, keys = None, ("group",)
    if "gold" in disjoint and len(items):
        side = _deal(_linked(groups, golds), holdout, rng)
        side = side if side is not None else _cut(groups, golds, holdout, rng)
        keys = SPLIT_KEYS if side is not None else keys
    if side is None and len(items):
        side = _deal(groups, holdout, rng)
    train = places[side == 0] if side is not None else places[:0]
    held = places[side == 1] if side is not None else places[:0]
    if min(len(train), len(held)) < least:
        rows = [("suite", suite.name), ("items", len(items)), ("groups", len(set(groups.tolist()))),
                ("halves", f"{len(train)} and {len(held)}, want {least} each")]  # fmt: skip
        raise ItemError(explain("too few items or groups to split.", rows, "give the suite more groups."))
    dropped = places[side == -1] if side is not None else places[:0]
    return SuiteSplit(suite.name, train, held, dropped, tuple(keys))


def leak_report(suites: Sequence[Suite], splits: Sequence[SuiteSplit]) -> pd.DataFrame:
    """What the halves share: one row a suite and key, with the share of held-out items that have it in training.

    Keys: group, gold (the answer's text), prompt (the same prompt, in any suite), opening (the prompt's first
    three words: a template), choice (the gold answer occurs in training as a wrong choice).

    Returns:
        Columns suite, key, kept_apart, shared, share, n_train, n_held, n_dropped.
    """
    everywhere = {_prompt(s.items[i]) for s, halves in zip(suites, splits, strict=True) for i in halves.train}
    rows = []
    for suite, halves in zip(suites, splits, strict=True):
        train, held = ([suite.items[i] for i in side] for side in (halves.train, halves.held))
        seen = {
            "group": ({i.group for i in train}, lambda i: i.group),
            "gold": ({gold_text(i) for i in train}, gold_text),
            "prompt": (everywhere, _prompt),
            "opening": ({_opening(i) for i in train}, _opening),
            "choice": ({c.strip().lower() for i in train for c in i.choices}, gold_text),
        }
        for key, (known, of) in seen.items():
            shared = sum(of(item) in known for item in held)
            rows.append({
                "suite": suite.name, "key": key, "kept_apart": key in halves.keys, "shared": shared,
                "share": shared / len(held), "n_train": len(train), "n_held": len(held),
                "n_dropped": len(halves.dropped),
            })  # fmt: skip
    return pd.DataFrame(rows)


def gold_text(item: Item) -> str:
    """The gold answer's text without case and outer white space; empty for an item without choices."""
    return item.choices[item.gold].strip().lower() if item.gold is not None else ""


def _prompt(item: Item) -> str | tuple[str, ...] | None:
    return item.prompt or item.contexts or item.choices or item.text  # a minimal pair has an empty prompt


def _opening(item: Item) -> str:
    return " ".join(item.context(item.gold or 0).split()[:3])


def _codes(values: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(values, dtype=str), return_inverse=True)[1] if len(values) else np.empty(0, np.int64)


def _linked(groups: np.ndarray, golds: np.ndarray) -> np.ndarray:
    """Label of the connected lump of each item: lumps share neither a group nor an answer."""
    label = groups.copy()
    while True:
        before = label.copy()
        for keys in (golds, groups):
            lowest = np.full(keys.max() + 1, label.max())
            np.minimum.at(lowest, keys, label)
            label = lowest[keys]
        if np.array_equal(before, label):
            return np.unique(label, return_inverse=True)[1]


def _deal(lumps: np.ndarray, holdout: float, rng: np.random.Generator) -> np.ndarray | None:
    """Side of each item (1 held out), whole lumps dealt largest first; None if the halves come out lopsided."""
    side = deal_groups(lumps, (1 - holdout, holdout), rng)
    return side if _balanced(side, holdout) else None


def _cut(groups: np.ndarray, golds: np.ndarray, holdout: float, rng: np.random.Generator) -> np.ndarray | None:
    """Side of each item, -1 where its group and its answer lie on different sides; the best of seeded tries."""
    best, kept = None, _LEAST * len(groups)
    for _ in range(_TRIES):
        of_gold = (rng.random(golds.max() + 1) < holdout).astype(np.int64)
        held = np.bincount(groups, weights=of_gold[golds]) / np.bincount(groups)
        of_group = np.where(held == 0.5, rng.integers(0, 2, len(held)), held > 0.5).astype(np.int64)
        side = np.where(of_group[groups] == of_gold[golds], of_group[groups], -1)
        if (side >= 0).sum() > kept and _balanced(side[side >= 0], holdout):
            best, kept = side, (side >= 0).sum()
    return best


def _balanced(side: np.ndarray, holdout: float) -> bool:
    return bool(abs(side.mean() - holdout) <= 0.2 and 0 < side.sum() < len(side))
