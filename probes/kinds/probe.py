"""A fitted probe: small, frozen, with where it came from; it reads rows and hands back directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear probe: score = X coefficients' + intercept.

    Args:
        kind: "ridge", "logistic", "diff_of_means" or "lda".
        task: "binary", "multiclass" or "regression".
        coefficients: [q, d] float64, one row a class (one in all for binary and regression).
        intercept: [q].
        classes: class names; empty for regression.
        penalty: the relative penalty it was fitted with, NaN where there is none.
        source: provenance: layer, model (base or aligned), rows, groups, seed.

    Example:
        >>> probe = Probe("ridge", "binary", np.array([[2.0, 0.0]]), np.array([-1.0]), ("no", "yes"))
        >>> probe.predict(np.array([[1.0, 5.0], [0.0, 5.0]]))
        ['yes', 'no']
    """

    kind: str
    task: str
    coefficients: np.ndarray
    intercept: np.ndarray
    classes: tuple[Any, ...] = ()
    penalty: float = float("nan")
    source: Mapping[str, object] = field(default_factory=dict)

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return [n, q] scores of rows X [n, d].

        Raises:
            UsageError: if the width of X is not the probe's.
        """
        if X.ndim != 2 or X.shape[1] != self.coefficients.shape[1]:
            rows = [("got", X.shape), ("expected", f"[n, {self.coefficients.shape[1]}]")]
            raise UsageError(explain("rows do not fit the probe.", rows))
        return X @ self.coefficients.T + self.intercept

    def predict(self, X: np.ndarray) -> list[Any]:
        """Return the class of each row (the value itself for regression)."""
        scores = self.scores(X)
        if self.task == "regression":
            return scores[:, 0].tolist()
        best = (scores[:, 0] > 0).astype(int) if self.task == "binary" else scores.argmax(1)
        return [self.classes[index] for index in best]

    def direction(self, *, site: str = "", layer: int | None = None, label: Any = None) -> Direction:
        """Return the unit vector along which the score grows, with the probe's provenance.

        Args:
            site: where the rows were read ("resid_post").
            layer: block index; the probe's own if left out.
            label: which class, needed for more than two classes.

        Raises:
            UsageError: if a multi-class probe is not told which class, or the class is unknown.
        """
        row = 0
        if len(self.coefficients) > 1:
            if label not in self.classes:
                rows = [("got", repr(label)), ("classes", ", ".join(map(repr, self.classes[:20])))]
                raise UsageError(explain("a multi-class probe has one direction a class.", rows, "label=..."))
            row = self.classes.index(label)
        at = int(self.source.get("layer", -1)) if layer is None else layer  # type: ignore[call-overload]
        return Direction(self.coefficients[row], site=site, layer=at, source={"probe": self.kind, **self.source})

    def __repr__(self) -> str:
        classes = f", classes={len(self.classes)}" if self.classes else ""
        return f"Probe({self.kind}, {self.task}, d={self.coefficients.shape[1]}{classes}, source={dict(self.source)!r})"
