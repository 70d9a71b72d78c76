"""What a probe's out-of-fold scores are worth: AUC, accuracy, log-loss, ECE, R^2, each with group-bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxlens.core.stats.intervals import group_counts
from taxlens.probes.rows.auc import EXACT_GROUPS, FoldAuc
from taxlens.probes.rows.folds import Folds
from taxlens.probes.rows.labels import Labels

_BINS = 10
_MANY = 10


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A value with its bootstrap draws.

    Args:
        value: on the rows themselves.
        draws: [draws] the same under group weights; all readings of a `Evaluator` share the weights.
    """

    value: float
    draws: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval (NaN draws, where a draw holds one class, are left out)."""
        if not np.isfinite(self.draws).any():
            return float("nan"), float("nan")
        tail = (1 - level) / 2
        low, high = np.nanquantile(self.draws, [tail, 1 - tail])
        return float(low), float(high)

    def minus(self, other: Score) -> Score:
        """Return the paired difference."""
        return Score(self.value - other.value, self.draws - other.draws)


class Evaluator:
    """Turns out-of-fold scores of fixed rows into readings that share one group bootstrap.

    Args:
        labels: of the kept rows.
        folds: of the kept rows.
        draws: bootstrap draws.
        seed: of the draws; the same groups and seed give the same draws everywhere.
    """

    def __init__(self, labels: Labels, folds: Folds, *, draws: int, seed: int) -> None:
        self.labels, self.folds = labels, folds
        self.weights = group_counts(folds.n_groups, draws=draws, seed=seed)
        self.curves: list[FoldAuc] = []
        if labels.task != "regression":
            wanted = [1] if labels.task == "binary" else range(len(labels.classes))
            self.curves = [FoldAuc(labels.codes == c, folds.of_row, folds.groups) for c in wanted]

    def main(self, scores: np.ndarray) -> Score:
        """Return the headline reading of scores [n, q]: AUC (macro, one class against the rest) or R^2."""
        return self.r2(scores) if self.labels.task == "regression" else self.auc(scores)

    @property
    def main_metric(self) -> str:
        """Name of the headline reading."""
        return "r2" if self.labels.task == "regression" else "auc"

    def measure(self, scores: np.ndarray, probabilities: np.ndarray | None) -> dict[str, Score]:
        """Return every reading of scores [n, q] and calibrated probabilities [n, classes]."""
        if self.labels.task == "regression":
            return {"r2": self.r2(scores)}
        out = {"auc": self.auc(scores), "balanced_accuracy": self.balanced_accuracy(scores)}
        if probabilities is not None:
            out["log_loss"], out["ece"] = self.log_loss(probabilities), self.ece(probabilities)
        if self.labels.task == "binary":
            out["snr"] = self.snr(scores)
        return out

    def auc(self, scores: np.ndarray) -> Score:
        """Return the within-fold AUC, macro-averaged over classes (chance .5)."""
        columns = [np.ascontiguousarray(scores[:, c]) for c in range(scores.shape[1])]
        values = np.array([curve.values(s) for curve, s in zip(self.curves, columns, strict=True)])
        usable = np.isfinite(values)
        if not usable.any():
            return Score(float("nan"), np.full(len(self.weights), np.nan))
        used = [(curve, s) for curve, s, ok in zip(self.curves, columns, usable, strict=True) if ok]
        if len(used) > _MANY or self.folds.n_groups > EXACT_GROUPS:
            influence = np.mean([curve.influence(s) for curve, s in used], axis=0)
            draws = values[usable].mean() + (self.weights - 1.0) @ influence
        else:
            draws = np.mean([curve.draws(s, self.weights) for curve, s in used], axis=0)
        return Score(float(values[usable].mean()), draws)

    def balanced_accuracy(self, scores: np.ndarray) -> Score:
        """Return the mean over classes of the share of its rows that are given that class."""
        given = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)
        n_classes = len(self.labels.classes)
        onehot = self.labels.codes[:, None] == np.arange(n_classes)
        hit = onehot & (given == self.labels.codes)[:, None]

        def recall(s: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = s[..., :n_classes] / s[..., n_classes:]
            return _mean_finite(shares)

        return self._of_sums(np.hstack([hit, onehot]).astype(np.float64), recall)

    def log_loss(self, probabilities: np.ndarray) -> Score:
        """Return the mean negative log-probability of the label, in nats."""
        p = probabilities[np.arange(len(self.labels)), self.labels.codes]
        loss = -np.log(np.maximum(p, 1e-12))
        return self._of_sums(np.stack([loss, np.ones_like(loss)], axis=1), lambda s: s[..., 0] / s[..., 1])

    def ece(self, probabilities: np.ndarray) -> Score:
        """Return the expected calibration error of the top class over ten equal-width bins.

        Resampling raises it (its bias grows with fewer rows), so the draws are moved to centre on the value.
        """
        confidence, hit = probabilities.max(1), probabilities.argmax(1) == self.labels.codes
        which = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        gap = np.where(which[:, None] == np.arange(_BINS), (confidence - hit)[:, None], 0.0)
        columns = np.hstack([gap, np.ones((len(gap), 1))])
        raw = self._of_sums(columns, lambda s: np.abs(s[..., :_BINS]).sum(-1) / s[..., _BINS])
        return Score(raw.value, np.maximum(raw.draws - raw.draws.mean() + raw.value, 0.0))

    def r2(self, predictions: np.ndarray) -> Score:
        """Return 1 - squared error over squared distance from the mean (0: no better than the mean)."""
        y, error = self.labels.values, self.labels.values - predictions[:, 0]
        columns = np.stack([error**2, y, y**2, np.ones_like(y)], axis=1)
        return self._of_sums(columns, lambda s: 1 - s[..., 0] / (s[..., 2] - s[..., 1] ** 2 / s[..., 3]))

    def snr(self, scores: np.ndarray) -> Score:
        """Return the squared distance of the class means in within-class standard deviations (d' squared)."""
        s, positive = scores[:, 0].copy(), self.labels.codes == 1
        for rows in (np.flatnonzero(self.folds.of_row == f) for f in range(self.folds.n_folds)):
            s[rows] -= s[rows].mean()
        s /= s.std() or 1.0
        side = np.stack([positive, ~positive], axis=1).astype(np.float64)
        columns = np.hstack([side, side * s[:, None], side * (s**2)[:, None]])

        def ratio(sums: np.ndarray) -> np.ndarray:
            n, total, square = sums[..., :2], sums[..., 2:4], sums[..., 4:]
            with np.errstate(invalid="ignore", divide="ignore"):
                gap = (total[..., 0] / n[..., 0]) - (total[..., 1] / n[..., 1])
                within = (square - total**2 / n).sum(-1) / n.sum(-1)
                return gap**2 / np.maximum(within, 1e-12)

        return self._of_sums(columns, ratio)

    def _of_sums(self, columns: np.ndarray, statistic) -> Score:
        sums = np.zeros((self.folds.n_groups, columns.shape[1]))
        np.add.at(sums, self.folds.groups, columns)
        return Score(float(statistic(sums.sum(0))), statistic(self.weights @ sums))


def _mean_finite(shares: np.ndarray) -> np.ndarray:
    finite = np.isfinite(shares)
    return np.where(finite, shares, 0.0).sum(-1) / np.maximum(finite.sum(-1), 1)
