"""A search of a few numbers for two or more aims at once: a tree-structured Parzen estimator.

Trials are split into good and other ones, both are smoothed into densities, and the next trial is the draw from the good
one's density at which it exceeds the other's most.

References:
    Bergstra et al. 2011; for several aims Ozaki et al. 2020 (good: the first fronts of trials that none beats). Within the
    front that does not fit whole, the trials furthest from their neighbours are taken (crowding distance, Deb et al. 2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

SHARE, MOST_GOOD = 0.1, 25
"""Share of the trials that count as good, and most of them."""
DRAWS = 128
"""Draws from the good trials' density, of which one is tried."""
WIDTH = 0.2
"""Width of a trial's own bump, of the range, before it shrinks with the number of trials."""


class ParzenSearch:
    """Asks for points in the unit cube and is told what they cost.

    Args:
        dimensions: numbers of a point, each in 0..1.
        binary: those that stand for one of two: below and above one half.
        startup: trials that are drawn at random first.
        rng: of every draw.
    """

    def __init__(
        self, dimensions: int, *, binary: Sequence[int] = (), startup: int = 60, rng: np.random.Generator
    ) -> None:
        self.dimensions, self.binary, self.startup, self.rng = dimensions, tuple(binary), startup, rng
        self.asked: list[np.ndarray] = []
        self.costs: list[tuple[float, ...]] = []

    def ask(self) -> np.ndarray:
        """The next point, float64 [dimensions]."""
        if len(self.asked) < self.startup:
            return self.rng.random(self.dimensions)
        order = ranked(np.array(self.costs))
        good = min(int(np.ceil(SHARE * len(order))), MOST_GOOD)
        points = np.array(self.asked)
        here, there = points[order[:good]], points[order[good:]]
        draws = self._drawn(here)
        gain = self._log_density(draws, here) - self._log_density(draws, there)
        return draws[int(np.argmax(gain))]

    def tell(self, point: np.ndarray, costs: Sequence[float]) -> None:
        """What a point cost, one number an aim, lower is better."""
        self.asked.append(point)
        self.costs.append(tuple(float(cost) for cost in costs))

    def best(self) -> list[int]:
        """Trials that no other one beats on every aim, from the highest first cost to the lowest."""
        costs = np.array(self.costs)
        front = [int(i) for i in np.flatnonzero(fronts(costs) == 0)]
        return sorted(front, key=lambda i: -costs[i, 0])

    def _bumps(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres and widths of the density's bumps: one a trial, and a wide one in the middle."""
        width = WIDTH * max(1, len(points)) ** (-1 / (self.dimensions + 4))
        centres = np.concatenate([points, np.full((1, self.dimensions), 0.5)])
        return centres, np.r_[np.full(len(points), width), 1.0][:, None]

    def _drawn(self, points: np.ndarray) -> np.ndarray:
        centres, widths = self._bumps(points)
        at = self.rng.integers(len(centres), size=DRAWS)
        low, high = ndtr((0 - centres[at]) / widths[at]), ndtr((1 - centres[at]) / widths[at])
        draws = centres[at] + widths[at] * ndtri(low + (high - low) * self.rng.random((DRAWS, self.dimensions)))
        for k in self.binary:
            one = np.where(at < len(points), centres[at, k] > 0.5, self.rng.random(DRAWS) > 0.5)
            draws[:, k] = np.where(one, 0.75, 0.25)
        return np.clip(draws, 0, 1)

    def _log_density(self, draws: np.ndarray, points: np.ndarray) -> np.ndarray:
        centres, widths = self._bumps(points)
        away = (draws[:, None] - centres) / widths
        inside = ndtr((1 - centres) / widths) - ndtr((0 - centres) / widths)
        each = -0.5 * away**2 - np.log(widths) - np.log(inside) - 0.5 * np.log(2 * np.pi)
        for k in self.binary:
            same = (draws[:, None, k] > 0.5) == (centres[None, :, k] > 0.5)
            each[:, :, k] = np.where(same, np.log(0.9), np.log(0.1))
            each[:, -1, k] = np.log(0.5)
        return logsumexp(each.sum(-1), axis=1) - np.log(len(centres))


def fronts(costs: np.ndarray) -> np.ndarray:
    """Front of each trial, int [trials]: 0 where no other trial is as good on every aim and better on one, and so on."""
    beats = (costs[:, None] <= costs[None]).all(-1) & (costs[:, None] < costs[None]).any(-1)
    found, left, level = np.full(len(costs), -1), np.ones(len(costs), bool), 0
    while left.any():
        now = left & ~(beats & left[:, None]).any(0)
        found[now], left, level = level, left & ~now, level + 1
    return found


def ranked(costs: np.ndarray) -> np.ndarray:
    """Trials from best to worst: front by front, within a front the least crowded first."""
    level = fronts(costs)
    lonely = np.zeros(len(costs))
    for front in np.unique(level):
        mine = np.flatnonzero(level == front)
        for column in costs[mine].T:
            order = mine[np.argsort(column, kind="stable")]
            spread = np.ptp(column) or 1.0
            lonely[order[[0, -1]]] = np.inf
            values = np.sort(column)
            lonely[order[1:-1]] += (values[2:] - values[:-2]) / spread
    return np.lexsort((-lonely, level))
