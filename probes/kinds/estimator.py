"""Any estimator in scikit-learn's manner as a probe: cloned for every fold, its scores brought to one form."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.probes.rows.labels import Labels


def probe_name(probe: Any, known: tuple[str, ...]) -> str:
    """Return the name of a probe: one of `known`, or the class name of an estimator.

    Raises:
        UsageError: for another name, or an object without `fit` and `predict`.
    """
    if isinstance(probe, str):
        return one_of(probe, known, what="probe")
    if isinstance(probe, type) or not (hasattr(probe, "fit") and hasattr(probe, "predict")):
        rows = [
            ("got", repr(probe)[:80]),
            ("expected", f"one of {', '.join(known)}, or an estimator with fit and predict"),
        ]
        raise UsageError(explain("this is no probe.", rows, "LogisticRegression(), with its brackets."))
    return type(probe).__name__


class EstimatorReader:
    """A fitted copy of an estimator that returns scores in the form of the other probes.

    Args:
        estimator: unfitted; it is copied, never fitted itself.
        X: [n, d] rows.
        labels: of the rows.

    Raises:
        UsageError: if a classifier is given a numeric label, or a regressor a class label.
    """

    def __init__(self, estimator: Any, X: np.ndarray, labels: Labels) -> None:
        kind = getattr(estimator, "_estimator_type", None) or _tag(estimator)
        wanted = "regressor" if labels.task == "regression" else "classifier"
        if kind is not None and kind != wanted:
            rows = [("estimator", type(estimator).__name__), ("is a", kind), ("label", labels.task)]
            raise UsageError(explain("the estimator does not fit the label.", rows, f"a {wanted}."))
        self.labels = labels
        self.fitted = _clone(estimator)
        self.fitted.fit(X, labels.values if labels.task == "regression" else labels.codes)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return scores [n, q]: of the second class for two classes, one a class for more, the value for numbers."""
        if self.labels.task == "regression":
            return np.asarray(self.fitted.predict(X), dtype=np.float64).reshape(len(X), 1)
        two = self.labels.task == "binary"
        if hasattr(self.fitted, "decision_function"):
            scores = np.asarray(self.fitted.decision_function(X), dtype=np.float64)
            if scores.ndim == 1:
                return scores[:, None] if two else np.stack([-scores, scores], 1)
            if scores.shape[1] == (1 if two else len(self.labels.classes)):
                return scores
        if hasattr(self.fitted, "predict_proba"):
            odds = np.log(np.clip(self._every_class(self.fitted.predict_proba(X)), 1e-12, 1.0))
        else:
            seen = np.asarray(self.fitted.predict(X)).astype(int)
            odds = np.where(seen[:, None] == np.arange(len(self.labels.classes)), 1.0, -1.0)
        return odds[:, 1:] - odds[:, :1] if two else odds

    def _every_class(self, known: np.ndarray) -> np.ndarray:
        """Return probabilities [n, classes], 0 for classes that the training rows lacked."""
        out = np.zeros((len(known), len(self.labels.classes)))
        out[:, np.asarray(self.fitted.classes_).astype(int)] = known
        return out


def _tag(estimator: Any) -> str | None:
    """Return what scikit-learn's tags call the estimator, where they can be read."""
    try:
        return estimator.__sklearn_tags__().estimator_type
    except (AttributeError, TypeError):
        return None


def _clone(estimator: Any) -> Any:
    """Return an unfitted copy: scikit-learn's clone where the estimator has parameters, else a deep copy."""
    if hasattr(estimator, "get_params") and type(estimator).__module__.split(".")[0] != "builtins":
        try:
            from sklearn.base import clone

            return clone(estimator)
        except ImportError:
            pass
    return copy.deepcopy(estimator)
