"""The kinds of probe, by name, each fitted in every fold behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from taxlens.core.errors import one_of
from taxlens.probes.crossfit import RidgeFits
from taxlens.probes.folds import Folds
from taxlens.probes.labels import Labels

KINDS = ("ridge",)


def fit_folds(
    kind: str, X: np.ndarray, labels: Sequence[Labels], folds: Folds, *, penalties: Sequence[float], seed: int
) -> Any:
    """Return the fits of one model and layer in every fold.

    Args:
        kind: one of `KINDS`.
        X: [n, d] rows.
        labels: the label first, then its controls.
        folds: of the rows.
        penalties: relative penalties to choose from inside each training part.
        seed: of everything random.

    Returns:
        An object with `blocks` (columns of each label), `read(fold, X)`, `held_out(fold, X)`,
        `typical_penalty()`, `linear`, and `whole(folds)` where linear.
    """
    one_of(kind, KINDS, what="probe")
    return RidgeFits(X, [label.targets() for label in labels], folds, penalties=penalties, seed=seed)
