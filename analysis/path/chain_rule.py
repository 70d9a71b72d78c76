"""The chain rule along the path: from derivatives of the choices' scores to effects on any metric of them.

One set of gradients serves every metric. With scores s_k(t) known along the path, a component's effect is the
integral of sum_k dM/ds_k(s(t)) s'_{k,c}(t); with s'_{k,c} a polynomial through the nodes this is a weighted sum of
what was measured there. The weights depend on item and choice, never on the component, so closure and additivity
over components, heads, triples and tokens hold to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from taxlens.analysis.path.accuracy import GRAZE, accuracy_weights, margin_weights
from taxlens.analysis.path.quadrature import QuadratureRule, Trajectory, interpolation
from taxlens.analysis.scoring.metrics import Gradient, Metric, chained_metrics, margin_value, metric_of
from taxlens.core.errors import UsageError, explain

CELLS = 128
"""Cells of the fine grid on each panel, four Gauss-Legendre points each."""

CHUNK = 128
"""Items chained at a time, so that the fine grid stays small."""

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A user's metric: (scores [..., items, choices] with -inf for no choice, gold [items]) -> values [..., items]."""


@dataclass(frozen=True, slots=True)
class ScoreMetric:
    """A metric that is any differentiable function of an item's choice scores.

    Args:
        function: torch function from scores to values.
        higher_is_better: whether a fall of the metric is a loss.

    Example:
        >>> odds = ScoreMetric(lambda scores, gold: scores[..., 0] - scores[..., 1])
        >>> odds.value(np.array([[1.0, 3.0]]), np.array([0])).tolist()
        [-2.0]
    """

    function: Function
    higher_is_better: bool = True

    @property
    def sign(self) -> float:
        """Sign that makes the tax positive for a loss, as of a `Metric`."""
        return 1.0 if self.higher_is_better else -1.0

    def value(self, scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
        """The metric of each item, float64 [..., items]."""
        return self.function(self._tensor(scores), torch.as_tensor(gold)).numpy()

    def gradient(self, scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
        """Its gradient with respect to the scores, the shape of `scores`."""
        asked = self._tensor(scores).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.function(asked, torch.as_tensor(gold)).sum(), asked)
        return torch.nan_to_num(gradient).numpy()

    def metric(self, name: str = "") -> Metric:
        """What is known of it: shown as its own numbers, chained by its gradient."""
        return Metric(
            name, "a user's own function of the choices' scores", unit="", scale=1.0, sign=self.sign, value=self.value,
            gradient=self.gradient, chain="gradient",
        )  # fmt: skip

    @staticmethod
    def _tensor(scores: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.where(np.isnan(scores), -np.inf, scores), dtype=torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Chained:
    """What each node's score derivatives are worth in one metric.

    Args:
        weights: float64 [nodes, items, choices]; the change of the metric that component c explains on an item is
            the sum over nodes and choices of weights * ds_k/dt by c.
        end: the metric at t = 1 as the interpolated scores predict it, float64 [items].
        grazes: items whose margin merely touched zero, shared by a softmax.
    """

    weights: np.ndarray
    end: np.ndarray
    grazes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Scores of one suite's choices along the path: both ends known, derivatives at the nodes.

    Args:
        rule: the nodes.
        start, end: scores at t = 0 and 1 by plain forward passes, float64 [items, choices], NaN for no choice.
        slopes: derivatives at the nodes, float64 [nodes, items, choices], NaN for no choice.
        gold: index of the right choice, int64 [items].
        n_bytes: bytes of each choice, float64 [items, choices]; only accuracy_norm needs them.
        graze: height of a margin's bump, nats, below which its two crossings are shared by a softmax of that
            temperature.
    """

    rule: QuadratureRule
    start: np.ndarray
    end: np.ndarray
    slopes: np.ndarray
    gold: np.ndarray
    n_bytes: np.ndarray | None = None
    graze: float = GRAZE

    def predicted_end(self) -> np.ndarray:
        """Scores at t = 1 that start and derivatives predict, [items, choices]: to be compared with `end`."""
        return self.start + np.tensordot(self.rule.weights(), self.slopes, axes=1)

    def end_error(self) -> float:
        """Sum of |predicted - true| over sum of |end - start| of all scores: 0 is perfect; 0 where nothing moved."""
        moved = float(np.nansum(np.abs(self.end - self.start)))
        return float(np.nansum(np.abs(self.predicted_end() - self.end))) / moved if moved else 0.0

    def trajectory(self) -> Trajectory:
        """Scores along the path, anchored for each item at the end where its metrics are most sensitive.

        What the quadrature misses then falls on the end where accuracy and probability are saturated. The rule
        looks at |gold minus best other| alone, so that exchanging the ends changes no effect but its sign.
        """
        missed = self.end - self.predicted_end()
        near = [np.abs(margin_value(s, self.gold)) for s in (self.start, self.end)]
        at_end = np.where(near[0] > near[1], 1.0, np.where(near[0] < near[1], 0.0, 0.5))
        return Trajectory(self.rule, self.start + at_end[:, None] * missed, self.slopes)


def chain(path: Path, metric: str | Metric | ScoreMetric) -> Chained:
    """Return what each node's derivatives are worth in a metric, item by item.

    Args:
        path: scores along the path.
        metric: a metric, its name, or a user's own.

    Raises:
        UsageError: an unknown metric, one that is only measured, or one by bytes without bytes.
    """
    known = as_metric(metric)
    pieces = [_chain(_slice(path, slice(i, i + CHUNK)), known) for i in range(0, len(path.gold), CHUNK)]
    return Chained(
        np.concatenate([p.weights for p in pieces], axis=1),
        np.concatenate([p.end for p in pieces]),
        sum(p.grazes for p in pieces),
    )


def direct(path: Path, metric: str | Metric | ScoreMetric, scores: np.ndarray) -> np.ndarray:
    """Weights of plain quadrature of the metric itself, float64 [nodes, items, choices]: a cross-check.

    Needs many more nodes than the chain rule where the metric saturates. With a rule of one node it is the
    first-order estimate from one gradient.

    Args:
        path: scores along the path.
        metric: one with a gradient; accuracy has none.
        scores: the scores that the forward passes at the nodes gave, float64 [nodes, items, choices].
    """
    return np.nan_to_num(_gradient(as_metric(metric))(scores, path.gold) * path.rule.weights()[:, None, None])


def as_metric(metric: str | Metric | ScoreMetric) -> Metric:
    """Return what is known of a metric: the registered one of that name, or a user's own function."""
    if isinstance(metric, Metric):
        return metric
    return metric.metric() if isinstance(metric, ScoreMetric) else metric_of(metric)


def values_of(
    metric: str | Metric | ScoreMetric, scores: np.ndarray, gold: np.ndarray, n_bytes: np.ndarray | None = None
) -> np.ndarray:
    """A metric of every item from a table of scores, float64 [..., items].

    Raises:
        UsageError: a metric that is no function of the scores, or one by bytes without bytes.
    """
    known = as_metric(metric)
    if known.value is None:
        raise UsageError(explain(f"{known.name} is no function of the choices' scores.", [("meaning", known.meaning)]))
    return np.asarray(known.value(_by_bytes(known, scores, n_bytes), gold))


def _by_bytes(metric: Metric, table: np.ndarray, n_bytes: np.ndarray | None) -> np.ndarray:
    if not metric.by_bytes:
        return table
    if n_bytes is None:
        raise UsageError(explain(f"{metric.name} divides by the bytes of each choice.", (), "pass n_bytes."))
    return table / n_bytes


def _chain(path: Path, metric: Metric) -> Chained:
    if metric.by_bytes:
        start, end, slopes = (_by_bytes(metric, part, path.n_bytes) for part in (path.start, path.end, path.slopes))
        scaled = Path(path.rule, start, end, slopes, path.gold, graze=path.graze)
        found = _chain(scaled, dataclasses.replace(metric, by_bytes=False))
        return Chained(np.nan_to_num(_by_bytes(metric, found.weights, path.n_bytes)), found.end, found.grazes)
    trajectory = path.trajectory()
    end = values_of(metric, trajectory.at(np.ones(1))[0], path.gold)
    if metric.chain == "gradient":
        return Chained(_smooth(path, _gradient(metric)), end)
    if metric.chain == "linear":
        slope = np.nan_to_num(_gradient(metric)(path.start, path.gold))
        return Chained(path.rule.weights()[:, None, None] * slope, end)
    if metric.chain == "best_other":
        return Chained(margin_weights(trajectory, path.gold), end)
    if metric.chain == "crossings":
        weights, grazes = accuracy_weights(trajectory, path.gold, graze=path.graze)
        return Chained(weights, end, grazes)
    raise UsageError(not_chained(metric))


def not_chained(metric: Metric) -> str:
    """Why a metric cannot be attributed along the path, in words."""
    rows = [("metric", metric.name), ("is", metric.meaning)]
    fix = f"attribute one of {', '.join(chained_metrics())}; {metric.name} stays in the tax."
    return explain("this metric has no gradient by the choices' scores: it is only measured.", rows, fix)


def _gradient(metric: Metric) -> Gradient:
    if metric.gradient is None:
        raise UsageError(not_chained(metric))
    return metric.gradient


def _smooth(path: Path, gradient: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    times, measure = _grid(path.rule)
    scores = path.trajectory().at(times)
    spread = interpolation(path.rule, times) * measure
    return np.tensordot(spread, np.nan_to_num(gradient(scores, path.gold)), axes=1)


def _grid(rule: QuadratureRule) -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.legendre.leggauss(4)
    times, measures = [], []
    for panel in rule.panels:
        edges = np.linspace(panel.start, panel.end, CELLS + 1)
        half = np.diff(edges)[:, None] / 2
        times.append(((edges[:-1, None] + half) + half * points).ravel())
        measures.append((half * weights).ravel())
    return np.concatenate(times), np.concatenate(measures)


def _slice(path: Path, part: slice) -> Path:
    size = None if path.n_bytes is None else path.n_bytes[part]
    return Path(path.rule, path.start[part], path.end[part], path.slopes[:, part], path.gold[part], size, path.graze)
