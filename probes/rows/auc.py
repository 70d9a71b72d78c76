"""AUC within folds, ties halved, with group-bootstrap draws that need no re-sorting."""

from __future__ import annotations

import numpy as np

EXACT_GROUPS = 400  # above this many groups the bootstrap is linearised (Obuchowski 1997), which then agrees


class FoldAuc:
    """AUC over pairs of rows of the same fold: sum of concordant pairs over sum of pairs.

    Scores of different folds come from different fits and are not comparable; pooling them biases the AUC
    of a label that is not there below .5. Range [0, 1], chance .5; NaN where no fold holds both classes.

    Args:
        positive: [n] whether the row is of the positive class.
        fold: [n] fold of each row.
        groups: [n] group code of each row (a group lies in one fold).

    Example:
        >>> auc = FoldAuc(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.arange(4))
        >>> auc.values(np.array([0.1, 0.9, 5.0, 4.0])).item()
        0.5

    References: Bamber 1975; Obuchowski 1997, Biometrics 53(2) (clustered AUC variance).
    """

    def __init__(self, positive: np.ndarray, fold: np.ndarray, groups: np.ndarray) -> None:
        self.n_groups = int(groups.max()) + 1
        self.n_rows = len(fold)
        self._folds = []
        for number in np.unique(fold):
            rows = np.flatnonzero(fold == number)
            here, local = np.unique(groups[rows], return_inverse=True)
            self._folds.append((rows, np.asarray(positive)[rows].astype(bool), here, local))
        self.pairs = float(sum(p.sum() * (~p).sum() for _, p, _, _ in self._folds))

    def values(self, scores: np.ndarray) -> np.ndarray:
        """Return the AUC of scores [..., n] as [...]."""
        scores = np.asarray(scores, dtype=np.float64)
        flat = scores.reshape(-1, scores.shape[-1])
        total = np.zeros(len(flat))
        for rows, positive, _, _ in self._folds:
            n_pos = int(positive.sum())
            if 0 < n_pos < len(rows):
                total += _rank_sum(flat[:, rows], positive) - n_pos * (n_pos + 1) / 2
        value = total / self.pairs if self.pairs else np.full(len(flat), np.nan)
        return value.reshape(scores.shape[:-1])

    def draws(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return [draws] AUCs of scores [n] under group weights [draws, n_groups].

        Exact up to 400 groups; above, first-order in the weights (the AUC's influence by group).
        """
        if self.n_groups > EXACT_GROUPS:
            return self.values(scores) + (weights - 1.0) @ self.influence(scores)
        above, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for rows, positive, here, local in self._folds:
            w = weights[:, here]
            count = _pair_counts(scores[rows], positive, local, len(here))
            above += ((w @ count) * w).sum(1)
            n_pos = np.bincount(local[positive], minlength=len(here))
            n_neg = np.bincount(local[~positive], minlength=len(here))
            pairs += (w @ n_pos) * (w @ n_neg)
        with np.errstate(invalid="ignore", divide="ignore"):
            return above / pairs

    def influence(self, scores: np.ndarray) -> np.ndarray:
        """Return [n_groups] first-order change of the AUC per unit of a group's weight."""
        value = float(self.values(scores))
        out = np.zeros(self.n_groups)
        for rows, positive, _, local in self._folds:
            placed = _placements(scores[rows], positive)
            n_pos, n_neg = positive.sum(), (~positive).sum()
            share = placed - value * np.where(positive, n_neg, n_pos)
            out += np.bincount(self._global(rows, local), weights=share, minlength=self.n_groups)
        return out / self.pairs

    def _global(self, rows: np.ndarray, local: np.ndarray) -> np.ndarray:
        here = next(h for r, _, h, _ in self._folds if r is rows)
        return here[local]


def _rank_sum(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return [m] sums of the average ranks (from 1) of the positive rows of scores [m, n]."""
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    labels = positive[order]
    ranks = np.broadcast_to(np.arange(1.0, scores.shape[1] + 1), scores.shape)
    tied = ranked[:, 1:] == ranked[:, :-1]
    if tied.any():
        ranks = ranks.copy()
        for row in np.flatnonzero(tied.any(1)):
            ranks[row] = _average_ranks(ranked[row])
    return (labels * ranks).sum(1)


def _average_ranks(ranked: np.ndarray) -> np.ndarray:
    """Return average ranks (from 1) of sorted values [n]."""
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    size = np.diff(np.r_[first, len(ranked)])
    return np.repeat(first + (size + 1) / 2, size)


def _placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return [n]: negatives below (for positive rows) or positives above (for negative rows), ties halved."""
    order = np.argsort(scores, kind="stable")
    rank = np.empty(len(scores))
    rank[order] = _average_ranks(scores[order])
    out = np.empty(len(scores))
    for side in (True, False):
        own = np.flatnonzero(positive == side)
        inner = np.argsort(scores[own], kind="stable")
        own_rank = np.empty(len(own))
        own_rank[inner] = _average_ranks(scores[own][inner]) if len(own) else []
        below = rank[own] - own_rank
        out[own] = below if side else positive.sum() - below
    return out


def _pair_counts(scores: np.ndarray, positive: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Return [n_groups, n_groups] concordant pairs with the positive in the first and the negative in the second."""
    order = np.argsort(scores, kind="stable")
    ranked, pos, group = scores[order], positive[order], group[order]
    negative = np.zeros((len(order) + 1, n_groups))
    negative[np.flatnonzero(~pos) + 1, group[~pos]] = 1.0
    np.cumsum(negative, axis=0, out=negative)
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    size = np.diff(np.r_[first, len(ranked)])
    below = (negative[np.repeat(first, size)] + negative[np.repeat(first + size, size)]) / 2
    count = np.zeros((n_groups, n_groups))
    np.add.at(count, group[pos], below[pos])
    return count
