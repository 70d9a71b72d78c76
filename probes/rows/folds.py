"""Folds that keep each group whole and each class spread: what keeps related prompts from leaking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.group_deals import deal_groups


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """A partition of rows into folds in which no group is split.

    Args:
        of_row: [n] fold of each row, 0..n_folds-1.
        groups: [n] group code of each row, 0..n_groups-1 in sorted order of the group names.
        n_folds: number of folds.
        n_groups: number of groups.
        notes: what to be careful about (a class absent from a fold).
    """

    of_row: np.ndarray
    groups: np.ndarray
    n_folds: int
    n_groups: int
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) row indices of each fold."""
        for fold in range(self.n_folds):
            yield np.flatnonzero(self.of_row != fold), np.flatnonzero(self.of_row == fold)

    def of_group(self) -> np.ndarray:
        """Return [n_groups] fold of each group."""
        fold = np.zeros(self.n_groups, dtype=np.int64)
        fold[self.groups] = self.of_row
        return fold


def group_codes(groups: Sequence[Any] | np.ndarray | str | None, n_rows: int) -> tuple[np.ndarray, list[str]]:
    """Return [n] group codes in sorted order of the names, and notes.

    Args:
        groups: [n] group of each row, or "items" to say that every row stands alone (warned).
        n_rows: rows expected.

    Raises:
        UsageError: if groups are left out, or their number differs from n_rows.
    """
    if groups is None:
        fix = "one group a row (rows that share a template, subject, answer or document share a group)."
        evidence = "without groups a label that is not there reads AUC .80 from 50 prompts of 8 paraphrases"
        raise UsageError(explain("probes need groups.", [("why", evidence)], fix + " Or groups='items'."))
    if isinstance(groups, str):
        if groups != "items":
            raise UsageError(explain("groups must be an array or 'items'.", [("got", repr(groups))]))
        note = "every row is its own group: related rows may lie on both sides of a fold and raise every number."
        return np.arange(n_rows), [note]
    names = np.asarray([str(group) for group in groups])
    if len(names) != n_rows:
        raise UsageError(explain("groups must have one entry a row.", [("groups", len(names)), ("rows", n_rows)]))
    return np.unique(names, return_inverse=True)[1], []


def group_folds(groups: np.ndarray, strata: np.ndarray | None = None, *, n_folds: int = 5, seed: int = 0) -> Folds:
    """Return folds that hold whole groups and spread every class as evenly as groups allow.

    Groups are placed one by one, the most one-sided first, each in the fold that then leaves the class
    shares most even (as scikit-learn's StratifiedGroupKFold; ties go to the smallest fold). The result
    depends on the seed and on group names and classes, not on the order of the rows.

    Args:
        groups: [n] group of each row (names or codes).
        strata: [n] class code of each row; None balances rows only.
        n_folds: number of folds, at least 2.
        seed: of the order in which equal groups are placed.

    Raises:
        UsageError: if there are fewer groups than folds, or a training part would hold one class.

    Example:
        >>> folds = group_folds(np.repeat(np.arange(10), 4), np.tile([0, 1], 20), n_folds=5)
        >>> np.bincount(folds.of_row).tolist()
        [8, 8, 8, 8, 8]
    """
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    if n_folds < 2 or n_groups < n_folds:
        rows = [("groups", n_groups), ("folds", n_folds), ("expected", "2 <= folds <= groups")]
        raise UsageError(explain("fewer groups than folds.", rows, "fewer folds, or finer groups."))
    classes = np.zeros(len(codes), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    n_classes = int(classes.max()) + 1
    counts = np.zeros((n_groups, n_classes))
    np.add.at(counts, (codes, classes), 1.0)
    fold = _place(counts, n_folds, np.random.default_rng(seed))
    table = np.zeros((n_folds, n_classes))
    np.add.at(table, fold, counts)
    return Folds(fold[codes], codes, n_folds, n_groups, tuple(_check(table)))


def balanced_folds(group_of: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold [n] of each row such that no group is split and folds are about equal in rows.

    Groups are put, largest first and in seeded order among equals, into the fold with fewest rows.

    Args:
        group_of: [n] group of each row as a number from 0.
        folds: number of folds; with fewer groups there is one fold a group.
        seed: of the order among groups of equal size.
    """
    parts = max(min(folds, len(np.bincount(group_of))), 1)
    return deal_groups(group_of, [1 / parts] * parts, np.random.default_rng([seed, 0]))


def _place(counts: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return [n_groups] folds by greedy placement of class counts [n_groups, n_classes]."""
    share = counts / counts.sum(0)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-share.std(axis=1)[order] - 1e-9 * share.sum(1)[order], kind="stable")]
    held = np.zeros((n_folds, counts.shape[1]))
    fold = np.zeros(len(counts), dtype=np.int64)
    total, square = held.sum(0), (held**2).sum(0)
    for group in order:
        after = square - held**2 + (held + share[group]) ** 2
        spread = np.sqrt(np.maximum(after / n_folds - ((total + share[group]) / n_folds) ** 2, 0)).mean(1)
        best = np.flatnonzero(spread <= spread.min() + 1e-12)
        chosen = best[np.argmin(held[best].sum(1))]
        fold[group] = chosen
        held[chosen] += share[group]
        total, square = held.sum(0), (held**2).sum(0)
    return fold


def _check(table: np.ndarray) -> list[str]:
    """Refuse folds whose training part holds one class; note classes that a fold does not test."""
    n_folds, n_classes = table.shape
    if n_classes < 2:
        return []
    training = table.sum(0) - table
    if ((training > 0).sum(1) < 2).any():
        rows = [
            ("rows by fold and class", table.astype(int).tolist()),
            ("expected", "two classes in each training part"),
        ]
        raise UsageError(explain("one class in a fold's training part.", rows, "fewer folds, or another label."))
    absent = (table == 0).any(1).sum()
    return [f"{absent} of {n_folds} folds do not hold every class: they add less to the AUC."] if absent else []
