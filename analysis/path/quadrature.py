"""Nested nodes on [0, 1] and the polynomials through them: what carries derivatives from nodes to the whole path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.polynomial import legendre

from taxlens.core.errors import UsageError, explain

_POSITIVE = (
    (0.774596669241483377035853079956,),
    (0.960491268708020283423507092629, 0.434243749346802558002071502844),
    (
        0.993831963212755022208512841307,
        0.888459232872256998890420167258,
        0.621102946737226402940687443816,
        0.223386686428966881628203986843,
    ),
    (
        0.999098124967667597662226062412,
        0.981531149553740106867361888547,
        0.929654857429740056670125725933,
        0.836725938168868735502753818110,
        0.702496206491527078609800156008,
        0.531319743644375623972103438052,
        0.331135393257976833092640782248,
        0.112488943133186625745843479720,
    ),
)
"""Positive nodes on [-1, 1] that each Gauss-Patterson rule adds to the one before (Patterson 1968)."""

LADDER = (3, 7, 15, 31)
"""Sizes of the nested rules."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A stretch of the path and the nodes that lie in it.

    Args:
        start, end: the stretch, 0 <= start < end <= 1.
        nodes: node positions in it, float64 [n], ascending.
    """

    start: float
    end: float
    nodes: np.ndarray

    def basis(self, t: np.ndarray) -> np.ndarray:
        """The polynomials that are 1 at one node and 0 at the others, at times `t`: float64 [n, times]."""
        return self._coefficients().T @ legendre.legvander(self._unit(t), len(self.nodes) - 1).T

    def integral(self, t: np.ndarray) -> np.ndarray:
        """Integrals of `basis` from the panel's start to each time: float64 [n, times]."""
        order = len(self.nodes)
        powers = legendre.legvander(self._unit(t), order).T
        unit = np.empty((order, powers.shape[1]))
        unit[0] = powers[0] + powers[1]
        for m in range(1, order):
            unit[m] = (powers[m + 1] - powers[m - 1]) / (2 * m + 1)
        return self._coefficients().T @ unit * (self.end - self.start) / 2

    def _unit(self, t: np.ndarray) -> np.ndarray:
        return (2 * np.asarray(t, dtype=np.float64) - self.start - self.end) / (self.end - self.start)

    def _coefficients(self) -> np.ndarray:
        """Legendre coefficients of the basis, float64 [degree + 1, n]."""
        return np.linalg.inv(legendre.legvander(self._unit(self.nodes), len(self.nodes) - 1))


@dataclass(frozen=True, slots=True, eq=False)
class QuadratureRule:
    """Panels that cover the path; nodes of all panels, in order, are the rule's nodes.

    Example:
        >>> rule = gauss_patterson(7)
        >>> float(round(rule.weights() @ rule.nodes**10, 12))
        0.090909090909
    """

    panels: tuple[Panel, ...]

    @property
    def nodes(self) -> np.ndarray:
        """All node positions, float64 [n], ascending."""
        return np.concatenate([panel.nodes for panel in self.panels])

    def weights(self) -> np.ndarray:
        """Quadrature weights of the nodes over the whole path, float64 [n]; they sum to 1."""
        return np.concatenate([panel.integral(np.array([panel.end]))[:, 0] for panel in self.panels])


def gauss_patterson(size: int, *, start: float = 0.0, end: float = 1.0) -> QuadratureRule:
    """Return the nested rule of 1, 3, 7, 15 or 31 nodes on one panel; each contains the one before.

    Exact for polynomials of degree 1, 5, 11, 23 and 47. All nodes are inside, so that the ends stay free as
    known truths.

    Raises:
        UsageError: another size.

    References:
        Patterson, The optimum addition of points to quadrature formulae, Math. Comp. 22 (1968).
    """
    if size not in (1, *LADDER):
        raise UsageError(explain("no nested rule of this size.", [("size", size), ("sizes", f"1, {LADDER}")]))
    count = 0 if size == 1 else LADDER.index(size) + 1
    positive = [x for group in _POSITIVE[:count] for x in group]
    unit = np.sort(np.array([0.0, *positive, *(-x for x in positive)]))
    return QuadratureRule((Panel(start, end, start + (end - start) * (1 + unit) / 2),))


_COMPANIONS = {7: (0, 1, 3, 5, 6), 15: (1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13), 31: tuple(range(1, 31, 2))}
"""For each nested rule, which of its nodes make the coarser rule that it is judged against."""


def companion(rule: QuadratureRule) -> QuadratureRule | None:
    """Return the coarser rule inside a nested rule of 7, 15 or 31 nodes, or None for another rule.

    5 of 7, 11 of 15 or 23 of 31 nodes: the rule before and half of the nodes added to it, chosen so that the
    polynomial through them does not swing. It integrates polynomials no better than the rule before, and follows
    the scores between the nodes better: what changes from it to the whole rule is the error of the coarser one.
    """
    size = len(rule.nodes)
    if len(rule.panels) != 1 or size not in _COMPANIONS:
        return None
    extra = (0, 4, 8, 12, 18, 22, 26, 30) if size == 31 else ()
    return through(rule.nodes[sorted((*_COMPANIONS[size], *extra))].tolist())


def single(t: float) -> QuadratureRule:
    """Return the rule of one node at `t`: one gradient taken for the whole path (a first-order estimate)."""
    return QuadratureRule((Panel(0.0, 1.0, np.array([float(t)])),))


def through(nodes: Sequence[float]) -> QuadratureRule:
    """Return the interpolatory rule through any distinct nodes of [0, 1]."""
    ordered = np.sort(np.asarray(nodes, dtype=np.float64))
    if len(ordered) == 0 or (np.diff(ordered) <= 0).any():
        raise UsageError(explain("nodes must be distinct.", [("nodes", list(nodes))]))
    return QuadratureRule((Panel(0.0, 1.0, ordered),))


def panelled(size: int, ends: Sequence[float]) -> QuadratureRule:
    """Return a rule of `size` nodes on each panel between neighbouring `ends` (which start at 0 and stop at 1)."""
    pieces = [gauss_patterson(size, start=a, end=b).panels[0] for a, b in pairwise(ends)]
    return QuadratureRule(tuple(pieces))


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Scores along the whole path, from their values at its start and their derivatives at the nodes.

    Args:
        rule: where the derivatives were taken.
        start: scores at t = 0, float64 [...].
        slopes: derivatives at the nodes, float64 [nodes, ...].
    """

    rule: QuadratureRule
    start: np.ndarray
    slopes: np.ndarray

    def at(self, t: np.ndarray) -> np.ndarray:
        """Scores at times `t`, float64 [times, ...]."""
        return self.start + np.tensordot(cumulative(self.rule, t).T, self.slopes, axes=1)

    def slope(self, t: np.ndarray) -> np.ndarray:
        """Derivatives at times `t`, float64 [times, ...]."""
        return np.tensordot(interpolation(self.rule, t).T, self.slopes, axes=1)


def interpolation(rule: QuadratureRule, t: np.ndarray) -> np.ndarray:
    """Each node's share of the derivative at times `t`, float64 [nodes, times] (panel by panel)."""
    t = np.asarray(t, dtype=np.float64)
    out = np.zeros((len(rule.nodes), len(t)))
    first = 0
    for number, panel in enumerate(rule.panels):
        last = number == len(rule.panels) - 1
        inside = (t >= panel.start) & ((t < panel.end) | last)
        rows = slice(first, first + len(panel.nodes))
        out[rows, inside] = panel.basis(t[inside])
        first = rows.stop
    return out


def cumulative(rule: QuadratureRule, t: np.ndarray) -> np.ndarray:
    """Each node's share of the integral from 0 to times `t`, float64 [nodes, times]."""
    t = np.asarray(t, dtype=np.float64)
    parts = [panel.integral(np.clip(t, panel.start, panel.end)) for panel in rule.panels]
    return np.concatenate(parts)
