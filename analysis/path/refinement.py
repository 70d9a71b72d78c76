"""Items whose scores a walk did not resolve, walked again on their own by finer rules."""

from __future__ import annotations

import dataclasses

import numpy as np

from taxlens.analysis.path.attribution import SuiteEffects
from taxlens.analysis.path.quadrature import LADDER, QuadratureRule, gauss_patterson


def unresolved(found: SuiteEffects, tolerance: float) -> np.ndarray:
    """Places of the items whose scores at t = 1 are off by more than half the tolerance of the mean item's move.

    The stopping rule looks at all items together; a few whose scores bend more than the others' pass under it.
    """
    return np.flatnonzero(found.missed > tolerance / 2 * float(found.moved.mean()))


def finer_rules(gradients: int, most: int) -> list[QuadratureRule]:
    """Nested rules to walk again with after `gradients` nodes, none larger than `most`; empty where there is none."""
    sizes = [size for size in LADDER if size <= most]
    return [gauss_patterson(size) for size in sizes if size >= gradients] if max(sizes, default=0) > gradients else []


def with_items(found: SuiteEffects, finer: SuiteEffects, places: np.ndarray) -> SuiteEffects:
    """Return a suite's effects with those of the items at `places` taken from a finer walk of these items alone.

    Quadrature errors stay those of the first walk, which is an upper bound for the items walked again.
    """
    values = {key: effects.copy() for key, effects in found.values.items()}
    for key, effects in finer.values.items():
        values[key][places] = effects
    missed, moved = found.missed.copy(), found.moved.copy()
    missed[places], moved[places] = finer.missed, finer.moved
    tokens = found.tokens
    if tokens is not None and finer.tokens is not None:
        mine = np.isin(tokens.item, places)
        by_token = {metric: effects.copy() for metric, effects in tokens.values.items()}
        for metric, effects in finer.tokens.values.items():
            by_token[metric][mine] = effects
        tokens = dataclasses.replace(tokens, values=by_token)
    return dataclasses.replace(
        found,
        values=values,
        missed=missed,
        moved=moved,
        tokens=tokens,
        forwards=max(found.forwards, finer.forwards),
        seconds=found.seconds + finer.seconds,
        rewalked=len(places),
    )
