"""The kinds of probe, by name, each fitted in every fold behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from taxlens.core.vocabularies import PROBES
from taxlens.probes.kinds.cross_validation import NestedFits
from taxlens.probes.kinds.crossfit import RidgeFits
from taxlens.probes.kinds.estimator import probe_name
from taxlens.probes.rows.folds import Folds
from taxlens.probes.rows.labels import Labels

KINDS = PROBES[:-1]


def fit_folds(
    kind: Any, X: np.ndarray, labels: Sequence[Labels], folds: Folds, *, penalties: Sequence[float], seed: int
) -> RidgeFits | NestedFits:
    """Return the fits of one model and layer in every fold.

    Args:
        kind: one of `KINDS`, or an estimator in scikit-learn's manner, cloned for every fold.
        X: [n, d] rows.
        labels: the label first, then its controls.
        folds: of the rows.
        penalties: relative penalties of the ridge (other kinds bring their own grid).
        seed: of everything random.

    Returns:
        An object with `blocks` (columns of each label), `read(fold, X)`, `held_out(fold, X)`,
        `typical_penalty()`, `linear`, and `whole(folds)` where linear.

    Raises:
        UsageError: for an unknown kind.
    """
    probe_name(kind, KINDS)
    if isinstance(kind, str) and kind == "ridge":
        return RidgeFits(X, [label.targets() for label in labels], folds, penalties=penalties, seed=seed)
    return NestedFits(kind, X, labels, folds, seed=seed)
