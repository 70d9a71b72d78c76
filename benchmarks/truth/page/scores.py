"""How well an answer agrees with a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one plant.

    Attributes:
        mass: share of positive effect on the planted components.
        relative_mass: the same over the exact Shapley oracle's.
        distance: L1 distance to exact Shapley, over the tax, the answer scaled to sum to the tax.
        raw_distance: the same without scaling.
        closure: sum of effects over the tax.
        top: whether the k planted components have the k largest effects, by size (a planted one may give back).
        passes: cost in forward passes.
    """

    mass: float
    relative_mass: float
    distance: float
    raw_distance: float
    closure: float
    top: bool
    passes: int


def mass(effects: np.ndarray, planted: np.ndarray) -> float:
    """Share of the positive part of effects that lies on planted components, in 0..1 (nan where none is)."""
    positive = np.clip(effects, 0, None)
    return float(positive[planted].sum() / positive.sum()) if positive.sum() > 0 else float("nan")


def score(
    effects: Mapping[str, float], oracle: Mapping[str, float], planted: Sequence[str], *, tax: float, passes: int
) -> Score:
    """Score a method's effects against exact Shapley effects and the planted components.

    Args:
        effects: component to effect; absent is 0.
        oracle: component to exact Shapley effect.
        planted: components that hold the harm.
        tax: the measured tax.
        passes: forward passes that the answer took.

    Returns:
        The score.
    """
    names = list(oracle)
    said = np.array([effects.get(name, 0.0) for name in names])
    right = np.array([oracle[name] for name in names])
    on = np.array([name in planted for name in names])
    total = said.sum()
    scaled = said * (tax / total) if abs(total) > 1e-9 else said
    first = {names[i] for i in np.argsort(-np.abs(said), kind="stable")[: len(planted)]}
    found = mass(said, on)
    return Score(
        mass=found,
        relative_mass=found / mass(right, on),
        distance=float(np.abs(scaled - right).sum() / abs(tax)),
        raw_distance=float(np.abs(said - right).sum() / abs(tax)),
        closure=float(total / tax),
        top=first == set(planted),
        passes=passes,
    )
