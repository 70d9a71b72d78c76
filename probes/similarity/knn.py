"""Do rows have the same neighbours in both spaces?"""

from __future__ import annotations

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of

K = 10
TILE = 512
METRICS = ("euclidean", "cosine")


def neighbours(X: np.ndarray, *, k: int = K, metric: str = "euclidean") -> np.ndarray:
    """Return the k nearest other rows of each row, [n, k], by blocks of 512 rows (no n x n matrix).

    Args:
        X: [n, d] rows.
        k: neighbours a row, fewer than n.
        metric: "euclidean" or "cosine" (of the rows as they are, not centred).

    Raises:
        UsageError: k is not in 1..n-1, or the metric is unknown.
    """
    one_of(metric, METRICS, what="metric")
    n = len(X)
    if not 1 <= k < n:
        rows = [("neighbours", k), ("rows", n), ("expected", "1 <= k < rows")]
        raise UsageError(explain("cannot take that many neighbours.", rows, "a smaller k, or more rows."))
    X = np.asarray(X, dtype=np.float64)
    X = X - X.mean(0) if metric == "euclidean" else X / np.maximum(np.linalg.norm(X, axis=1), 1e-300)[:, None]
    squares = np.einsum("nd,nd->n", X, X) if metric == "euclidean" else np.zeros(n)
    found = np.empty((n, k), dtype=np.int64)
    for start in range(0, n, TILE):
        stop = min(start + TILE, n)
        distance = squares[None, :] - 2 * X[start:stop] @ X.T
        distance[np.arange(stop - start), np.arange(start, stop)] = np.inf
        found[start:stop] = np.argpartition(distance, k - 1, axis=1)[:, :k]
    return found


def shared_neighbours(near_x: np.ndarray, near_y: np.ndarray) -> np.ndarray:
    """Return the share [n] of each row's k neighbours that both spaces agree on, in [0, 1].

    Args:
        near_x: [n, k] neighbours in one space.
        near_y: [n, k] neighbours in the other.
    """
    n, k = near_x.shape
    offset = n * np.arange(n)[:, None]
    both = np.concatenate([near_x + offset, near_y + offset], axis=1)
    both.sort(axis=1)
    return (both[:, 1:] == both[:, :-1]).sum(1) / k
