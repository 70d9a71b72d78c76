"""Where two choices change places along the path: exact weights for accuracy and margin.

Accuracy jumps where the gold choice and its best other cross. The jump is shared in proportion to what moves the
margin there, m'_c(t*) / |m'(t*)|, the limit of a sharpening softmax. A margin that merely touches zero would give
two huge effects that cancel: such bumps are shared by a softmax of a stated temperature instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from taxlens.analysis.path.quadrature import Trajectory, cumulative, interpolation

GRAZE = 0.05
"""Height in nats under which a bump of the margin across zero counts as a graze; also the softmax's temperature."""

STEPS = 256
"""Steps of the grid on which crossings are looked for, on each panel."""

_FAR = 12.0
"""Temperatures away from zero beyond which a softmax is saturated."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Times at which two choices of an item cross, each array [events]."""

    item: np.ndarray
    first: np.ndarray
    second: np.ndarray
    time: np.ndarray


def margin_weights(trajectory: Trajectory, gold: np.ndarray) -> np.ndarray:
    """What each node's derivatives are worth in gold minus best other, float64 [nodes, items, choices]."""
    times, others, _ = _grid(trajectory, gold)
    weights = np.zeros(trajectory.slopes.shape)
    whole = cumulative(trajectory.rule, np.ones(1))
    items = np.arange(len(gold))
    single = ~np.isfinite(others).any(axis=(0, 2))
    weights[:, items, gold] = np.where(single, 0.0, whole)
    best = np.argmax(others, axis=2)
    weights[:, items, best[-1]] -= np.where(single, 0.0, whole)
    switches = _switches(trajectory, times, best)
    passed = cumulative(trajectory.rule, switches.time)
    np.add.at(weights, (slice(None), switches.item, switches.first), -passed)
    np.add.at(weights, (slice(None), switches.item, switches.second), passed)
    return weights


def accuracy_weights(trajectory: Trajectory, gold: np.ndarray, *, graze: float = GRAZE) -> tuple[np.ndarray, int]:
    """What each node's derivatives are worth in accuracy, float64 [nodes, items, choices], and the grazing items.

    A tie counts as lm-eval's arg max counts it: the first of equal choices wins.
    """
    times, others, right = _grid(trajectory, gold)
    best = np.argmax(others, axis=2)
    flips = _flips(trajectory, gold, times, best, right)
    weights = np.zeros(trajectory.slopes.shape)
    grazing = 0
    for item in np.unique(flips.item):
        mine = np.flatnonzero(flips.item == item)
        margin = _margin(trajectory, int(item), int(gold[item]))
        clusters = list(_clusters(flips.time[mine], margin, graze))
        for number, (low, high) in enumerate(clusters):
            inside = mine[low:high]
            if high - low == 1 and _cross(weights, trajectory, flips, int(inside[0]), graze):
                continue
            before = flips.time[mine[low - 1]] if number else 0.0
            after = flips.time[mine[high]] if high < len(mine) else 1.0
            _soften(weights, trajectory, int(item), int(gold[item]), (before, *flips.time[inside], after), graze)
            grazing += 1
    return weights, grazing


def _grid(trajectory: Trajectory, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times [g], scores of the other choices [g, items, choices] (-inf: gold or none), and who is right [g, items]."""
    panels = trajectory.rule.panels
    times = np.unique(np.concatenate([np.linspace(p.start, p.end, STEPS + 1) for p in panels]))
    scores = trajectory.at(times)
    others = np.where(np.isnan(scores), -np.inf, scores)
    right = np.argmax(others, axis=2) == gold
    others[:, np.arange(len(gold)), gold] = -np.inf
    return times, others, right


def _switches(trajectory: Trajectory, times: np.ndarray, best: np.ndarray) -> Events:
    step, item = np.nonzero(best[1:] != best[:-1])
    first, second = best[step, item], best[step + 1, item]
    time = _root(trajectory, item, first, second, times[step], times[step + 1])
    return Events(item, first, second, time)


def _flips(trajectory: Trajectory, gold: np.ndarray, times: np.ndarray, best: np.ndarray, right: np.ndarray) -> Events:
    step, item = np.nonzero(right[1:] != right[:-1])
    low, high = times[step], times[step + 1]
    before, after = best[step, item], best[step + 1, item]
    other = before.copy()
    switched = np.flatnonzero(before != after)
    if len(switched):
        i, k = item[switched], before[switched]
        middle = _root(trajectory, i, k, after[switched], low[switched], high[switched])
        ahead = _gap(trajectory, i, gold[i], k, middle) > 0
        later = ahead != right[step[switched] + 1, i]
        other[switched] = np.where(later, after[switched], k)
        low[switched] = np.where(later, middle, low[switched])
        high[switched] = np.where(later, high[switched], middle)
    time = _root(trajectory, item, gold[item], other, low, high)
    order = np.lexsort((time, item))
    return Events(item[order], gold[item][order], other[order], time[order])


def _gap(trajectory: Trajectory, item: np.ndarray, first: np.ndarray, second: np.ndarray, t: np.ndarray) -> np.ndarray:
    slopes = trajectory.slopes[:, item, first] - trajectory.slopes[:, item, second]
    start = trajectory.start[item, first] - trajectory.start[item, second]
    return start + (cumulative(trajectory.rule, t) * slopes).sum(axis=0)


def _root(
    trajectory: Trajectory,
    item: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Times at which the two choices are equal, by bisection in [low, high]; an end that is a tie is the root."""
    low, high = low.copy(), high.copy()
    if not len(item):
        return low
    at_low, at_high = (_gap(trajectory, item, first, second, t) for t in (low, high))
    high = np.where(at_low == 0, low, high)
    low = np.where((at_high == 0) & (at_low != 0), high, low)
    for _ in range(54):
        middle = (low + high) / 2
        same = np.sign(_gap(trajectory, item, first, second, middle)) == np.sign(at_low)
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return (low + high) / 2


def _margin(trajectory: Trajectory, item: int, gold: int) -> Callable[[np.ndarray], np.ndarray]:
    mine = Trajectory(trajectory.rule, trajectory.start[item], trajectory.slopes[:, item])

    def margin(t: np.ndarray) -> np.ndarray:
        scores = mine.at(np.atleast_1d(t))
        others = np.where(np.isnan(scores), -np.inf, scores)
        others[:, gold] = -np.inf
        return scores[:, gold] - others.max(axis=1)

    return margin


def _clusters(times: np.ndarray, margin: Callable[[np.ndarray], np.ndarray], graze: float) -> Iterator[tuple[int, int]]:
    """Runs [low, high) of crossings between which the margin never rises above the graze height."""
    low = 0
    for number in range(1, len(times) + 1):
        if number < len(times):
            between = np.linspace(times[number - 1], times[number], 33)[1:-1]
            if np.abs(margin(between)).max() < graze:
                continue
        yield low, number
        low = number


def _cross(weights: np.ndarray, trajectory: Trajectory, flips: Events, event: int, graze: float) -> bool:
    """Share one clean crossing; False where the margin is too flat there to be shared by its slope."""
    i, g, k, t = (int(flips.item[event]), int(flips.first[event]), int(flips.second[event]), flips.time[event])
    spread = interpolation(trajectory.rule, np.array([t]))[:, 0]
    slope = float(spread @ (trajectory.slopes[:, i, g] - trajectory.slopes[:, i, k]))
    if abs(slope) < graze:
        return False
    weights[:, i, g] += spread / abs(slope)
    weights[:, i, k] -= spread / abs(slope)
    return True


def _soften(
    weights: np.ndarray, trajectory: Trajectory, item: int, gold: int, times: tuple[float, ...], temperature: float
) -> None:
    """Share a run of crossings by the softmax of the margin, over the stretch where it is near zero.

    The stretch ends where the margin is equally far from zero on both sides, so that a bump sums to exactly
    nothing; a run with a net flip is scaled to sum to exactly that flip.
    """
    margin = _margin(trajectory, item, gold)
    sides = [np.linspace(times[1], times[0], 257), np.linspace(times[-2], times[-1], 257)]
    reach = [np.abs(margin(side)).max() for side in sides]
    returns = len(times) % 2 == 0
    level = min(*reach, _FAR * temperature) if returns else _FAR * temperature
    stretch = [_leave(margin, side, min(level, far)) for side, far in zip(sides, reach)]
    if stretch[1] <= stretch[0]:
        return
    points, measure = np.polynomial.legendre.leggauss(4)
    edges = _edges(trajectory, item, gold, stretch)
    half = np.diff(edges)[:, None] / 2
    t = ((edges[:-1, None] + half) + half * points).ravel()
    bell = 1 / (4 * temperature * np.cosh(margin(t) / (2 * temperature)) ** 2)
    ends = 1 / (1 + np.exp(-margin(np.array(stretch)) / temperature))
    scale = 1.0 if returns else abs(ends[1] - ends[0])
    spread = interpolation(trajectory.rule, t) * (bell * (half * measure).ravel()) / scale
    scores = trajectory.at(t)[:, item]
    scores[:, gold] = -np.inf
    best = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    weights[:, item, gold] += spread.sum(axis=1)
    for other in np.unique(best):
        weights[:, item, other] -= spread[:, best == other].sum(axis=1)


def _edges(trajectory: Trajectory, item: int, gold: int, stretch: list[float]) -> np.ndarray:
    """128 cells of a stretch, cut again where another choice becomes the best other (the margin has a kink there)."""
    edges = np.linspace(*stretch, 129)
    mine = Trajectory(trajectory.rule, trajectory.start[[item]], trajectory.slopes[:, [item]])
    scores = mine.at(edges)
    others = np.where(np.isnan(scores), -np.inf, scores)
    others[..., gold] = -np.inf
    return np.unique(np.concatenate([edges, _switches(mine, edges, np.argmax(others, axis=2)).time]))


def _leave(margin: Callable[[np.ndarray], np.ndarray], side: np.ndarray, level: float) -> float:
    """The first time, walking along `side`, at which |margin| is `level`."""
    reached = np.flatnonzero(np.abs(margin(side)) >= level * (1 - 1e-12))
    if not len(reached) or reached[0] == 0:
        return float(side[0] if len(reached) else side[-1])
    low, high = side[reached[0] - 1], side[reached[0]]
    for _ in range(54):
        middle = (low + high) / 2
        if abs(float(margin(np.array([middle]))[0])) >= level:
            high = middle
        else:
            low = middle
    return float(high)
