"""Do pairs of rows that are far apart in one space lie far apart in the other?"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from taxlens.core.errors import UsageError, explain, one_of

DISSIMILARITIES = ("correlation", "euclidean")


def dissimilarities(X: np.ndarray, *, dissimilarity: str = "correlation") -> np.ndarray:
    """Return the dissimilarity of every pair of rows, [n (n - 1) / 2], in the order of the upper triangle.

    Args:
        X: [n, d] rows.
        dissimilarity: "correlation" (1 - Pearson across the d neurons) or "euclidean" (squared, over d).

    Raises:
        UsageError: a row is constant across neurons (no correlation), or the name is unknown.
    """
    one_of(dissimilarity, DISSIMILARITIES, what="dissimilarity")
    X = np.asarray(X, dtype=np.float64)
    upper = np.triu_indices(len(X), 1)
    if dissimilarity == "euclidean":
        X = X - X.mean(0)
        squares = np.einsum("nd,nd->n", X, X)
        return np.maximum(squares[upper[0]] + squares[upper[1]] - 2 * (X @ X.T)[upper], 0) / X.shape[1]
    X = X - X.mean(1, keepdims=True)
    norms = np.linalg.norm(X, axis=1)
    if not norms.all():
        rows = [("constant rows", int((norms == 0).sum())), ("rows", len(X))]
        raise UsageError(explain("a constant row has no correlation.", rows, "dissimilarity='euclidean'"))
    X = X / norms[:, None]
    return 1 - (X @ X.T)[upper]


def rsa(X: np.ndarray, Y: np.ndarray, *, dissimilarity: str = "correlation", ranks: bool = True) -> float:
    """Return the correlation of the two sets of pairwise dissimilarities, in [-1, 1].

    1 where the geometry is the same (up to a monotone map with `ranks`), 0 on average for unrelated rows.
    With "euclidean" invariant to rotation, isotropic scale and translation; with "correlation" to none of
    them but scale, since it correlates across neurons. Memory and time grow with n^2.

    Args:
        X: [n, d_x] base rows.
        Y: [n, d_y] aligned rows, same order.
        dissimilarity: "correlation" or "euclidean".
        ranks: Spearman if true, else Pearson.

    Raises:
        UsageError: fewer than 3 rows, or all dissimilarities equal.

    References:
        Kriegeskorte, Mur and Bandettini 2008, Frontiers in Systems Neuroscience 2:4.
    """
    if len(X) < 3:
        raise UsageError(explain("too few rows for RSA.", [("rows", len(X)), ("expected", "at least 3")]))
    both = [dissimilarities(rows, dissimilarity=dissimilarity) for rows in (X, Y)]
    return correlate_dissimilarities(both[0], both[1], ranks=ranks)


def correlate_dissimilarities(first: np.ndarray, second: np.ndarray, *, ranks: bool = True) -> float:
    """Return the Spearman (or Pearson) correlation of two dissimilarity vectors [pairs]."""
    if ranks:
        first, second = rankdata(first), rankdata(second)
    a, b = first - first.mean(), second - second.mean()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    if size == 0:
        raise UsageError(explain("all rows are equally dissimilar: no correlation.", [("pairs", len(a))]))
    return float(a @ b / size)
