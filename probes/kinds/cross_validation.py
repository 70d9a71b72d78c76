"""Probes without a closed form: penalty by inner group folds, whose left-out scores also calibrate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.kinds.class_means import fit_diff_of_means, fit_lda
from taxlens.probes.kinds.estimator import EstimatorReader
from taxlens.probes.kinds.logistic import fit_logistic
from taxlens.probes.kinds.network import fit_network
from taxlens.probes.rows.folds import Folds, group_folds
from taxlens.probes.rows.labels import Labels

Reader = Callable[[np.ndarray], np.ndarray]
_INNER_FOLDS = 3
_GRIDS = {
    "logistic": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "lda": (1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "mlp": (1e-3, 1e-2),
    "diff_of_means": (float("nan"),),
}


@dataclass(frozen=True, slots=True, eq=False)
class FoldLine:
    """A linear reader: X coefficients' + intercept."""

    coefficients: np.ndarray
    intercept: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return [n, q] scores."""
        return X @ self.coefficients.T + self.intercept


def fit_once(kind: Any, X: np.ndarray, labels: Labels, *, penalty: float, seed: int = 0) -> Reader:
    """Return a reader of one kind fitted on rows X [n, d] with a given relative penalty.

    Args:
        kind: "logistic", "lda", "mlp", "diff_of_means", or an estimator (which brings its own penalty).
        X: [n, d] rows.
        labels: of the rows.
        penalty: relative: logistic times a quarter of the scatter's mean eigenvalue, lda times that of the
            covariance, mlp weight decay.
        seed: of the network's start.

    Raises:
        UsageError: if the kind reads classes only and the label is a number.
    """
    if not isinstance(kind, str):
        return EstimatorReader(kind, X, labels)
    if labels.task == "regression" and kind in ("logistic", "lda"):
        rows = [("probe", kind), ("label", "regression"), ("expected", "classes")]
        raise UsageError(explain("this probe reads classes.", rows, "probe='ridge'."))
    if kind == "logistic":
        unit = max(float(((X - X.mean(0)) ** 2).sum()) / X.shape[1] / 4, 1e-12)
        return FoldLine(*fit_logistic(X, labels.codes, n_classes=max(len(labels.classes), 2), penalty=penalty * unit))
    if kind == "lda":
        return FoldLine(*fit_lda(X, labels, penalty=penalty))
    if kind == "mlp":
        return fit_network(X, labels, penalty=penalty, seed=seed)
    return FoldLine(*fit_diff_of_means(X, labels))


class NestedFits:
    """Probes of one model and layer in every fold, penalties chosen by three inner group folds.

    Args:
        kind: "logistic", "lda", "mlp", "diff_of_means", or an estimator of scikit-learn's form, fitted as it is given.
        X: [n, d] rows.
        labels: the label first, then its controls.
        folds: of the rows.
        seed: of inner folds and starts.
    """

    def __init__(self, kind: Any, X: np.ndarray, labels: Sequence[Labels], folds: Folds, *, seed: int) -> None:
        self.kind, self.linear = kind, isinstance(kind, str) and kind != "mlp"
        self.X, self.labels, self.folds, self.seed = X, list(labels), folds, seed
        widths = [1 if one.task in ("binary", "regression") else len(one.classes) for one in labels]
        edges = np.cumsum([0, *widths])
        self.blocks = [slice(int(a), int(a) + w) for a, w in zip(edges, widths, strict=False)]
        self.penalty = np.full((folds.n_folds, len(self.labels)), np.nan)
        self._readers: list[list[Reader]] = []
        self._inner: list[list[tuple[np.ndarray, Reader]]] = []
        for fold, (train, _) in enumerate(folds):
            readers = []
            for i, one in enumerate(self.labels):
                penalty, inner = self._choose(one, train, fold)
                self.penalty[fold, i] = penalty
                readers.append(fit_once(kind, X[train], rows_of(one, train), penalty=penalty, seed=seed))
                if i == 0:
                    self._inner.append(inner)
            self._readers.append(readers)

    def _choose(self, labels: Labels, train: np.ndarray, fold: int) -> tuple[float, list[tuple[np.ndarray, Reader]]]:
        """Return the penalty of least left-out loss, and the inner (rows, reader) pairs at it."""
        inner = group_folds(
            self.folds.groups[train], rows_of(labels, train).strata(), n_folds=_INNER_FOLDS, seed=self.seed + fold
        )
        tried = []
        for penalty in _GRIDS[self.kind] if isinstance(self.kind, str) else (float("nan"),):
            pairs, loss = [], 0.0
            for fit, left in inner:
                reader = fit_once(
                    self.kind, self.X[train[fit]], rows_of(labels, train[fit]), penalty=penalty, seed=self.seed
                )
                pairs.append((train[left], reader))
                loss += left_out_loss(self.kind, reader(self.X[train[left]]), rows_of(labels, train[left]))
            tried.append((loss, penalty, pairs))
        _, penalty, pairs = min(tried, key=lambda one: one[0])
        return penalty, pairs

    def read(self, fold: int, X: np.ndarray) -> np.ndarray:
        """Return [k, every q] scores of rows X [k, d] by the probes of a fold."""
        return np.hstack([reader(X) for reader in self._readers[fold]])

    def held_out(self, fold: int, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return training rows of a fold and their scores [k, q] by the inner fits that did not see them."""
        rows = np.concatenate([rows for rows, _ in self._inner[fold]])
        return rows, np.vstack([reader(X[rows]) for rows, reader in self._inner[fold]])

    def typical_penalty(self) -> float:
        """Return the median over folds of the label's penalty (for ridge-based tests: .1 where there is none)."""
        chosen = self.penalty[:, 0]
        return (
            0.1
            if not isinstance(self.kind, str) or self.kind != "logistic"
            else float(np.exp(np.median(np.log(chosen))))
        )

    def whole(self, kept: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (coefficients [q, d], intercepts [q]) of the label fitted on all folds, or on those in `kept`."""
        rows = np.arange(len(self.X)) if kept is None else np.flatnonzero(np.isin(self.folds.of_row, kept))
        penalty = float(np.median(self.penalty[:, 0]))
        line = fit_once(self.kind, self.X[rows], rows_of(self.labels[0], rows), penalty=penalty, seed=self.seed)
        return line.coefficients, line.intercept  # type: ignore[attr-defined]


def rows_of(labels: Labels, rows: np.ndarray) -> Labels:
    """Return the labels of some rows, with the same classes."""
    return replace(labels, codes=labels.codes[rows], values=labels.values[rows], keep=labels.keep[rows])


def left_out_loss(kind: Any, scores: np.ndarray, labels: Labels) -> float:
    """Return the summed loss of left-out scores: squared error for regression, log-loss else."""
    if labels.task == "regression":
        return float(((scores[:, 0] - labels.values) ** 2).sum())
    if not isinstance(kind, str) or kind == "diff_of_means":
        return 0.0
    if scores.shape[1] == 1:
        sign = np.where(labels.codes == 1, 1.0, -1.0)
        return float(np.logaddexp(0.0, -sign * scores[:, 0]).sum())
    norm = np.logaddexp.reduce(scores, axis=1)
    return float((norm - scores[np.arange(len(scores)), labels.codes]).sum())
