"""Few rows held apart from a stream: those of largest norm, and a random sample."""

from __future__ import annotations

import math

import numpy as np

HELD = 256


class HeldRows:
    """The 256 rows of largest norm in each model, held apart so that no sum ever contains them.

    A few massive rows dominate every covariance; subtracting them afterwards would cost digits.
    """

    __slots__ = ("X", "Y", "fold")

    def __init__(self) -> None:
        self.X = self.Y = np.empty((0, 0))
        self.fold = np.empty(0, dtype=np.int64)

    def exchange(self, X: np.ndarray, Y: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take in a block's rows, keep the largest and give back all others (rows, and their folds)."""
        if len(self.fold):
            X, Y = np.concatenate([self.X, X]), np.concatenate([self.Y, Y])
            fold = np.concatenate([self.fold, fold])
        stay = _largest(X, HELD) | _largest(Y, HELD)
        self.X, self.Y, self.fold = X[stay], Y[stay], fold[stay]
        return X[~stay], Y[~stay], fold[~stay]

    def below(self, share: float, n: int) -> tuple[np.ndarray, int]:
        """Return which held rows [held] are not among the top `share` of n rows, and how many are."""
        count = min(math.ceil(share * n), HELD) if share > 0 else 0
        top = _largest(self.X, count) | _largest(self.Y, count)
        if n - top.sum() < 4:
            top[:] = False
        return ~top, int(top.sum())


class ReservoirRows:
    """A uniform random sample of a stream's rows, the same for any cutting of the stream.

    Args:
        size: rows to hold.
        seed: of the sample.
    """

    __slots__ = ("_X", "_Y", "_group", "_index", "_key", "_rng", "_seen", "size")

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._rng = np.random.default_rng([seed, 2])
        self._key = np.empty(0)
        self._seen = 0

    def update(self, X: np.ndarray, Y: np.ndarray, group: np.ndarray) -> None:
        """Offer a block of rows [k, d] and their groups [k]."""
        key = self._rng.random(len(X))
        index = self._seen + np.arange(len(X))
        self._seen += len(X)
        if len(self._key):
            X, Y = np.concatenate([self._X, X]), np.concatenate([self._Y, Y])
            group, key = np.concatenate([self._group, group]), np.concatenate([self._key, key])
            index = np.concatenate([self._index, index])
        stay = np.sort(np.argsort(key, kind="stable")[: self.size])
        self._X, self._Y, self._group = X[stay], Y[stay], group[stay]
        self._key, self._index = key[stay], index[stay]

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the sample: base rows [m, d], aligned rows [m, d] and groups [m], in stream order."""
        return self._X, self._Y, self._group


def below_top(X: np.ndarray, Y: np.ndarray, share: float) -> np.ndarray:
    """Return which rows [n] are not among the top `share` of norms in either model."""
    count = math.ceil(share * len(X)) if share > 0 else 0
    return ~(_largest(X, count) | _largest(Y, count))


def _largest(X: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(len(X), dtype=bool)
    if count >= len(X):
        chosen[:] = True
    elif count > 0:
        norms = np.einsum("nd,nd->n", X, X)
        chosen[np.argsort(-norms, kind="stable")[:count]] = True
    return chosen
