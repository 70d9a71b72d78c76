"""Node by node until the account closes: the adaptive walk of one shard of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from taxlens.analysis.path.chain_rule import Chained, Path, ScoreMetric, as_metric, chain, values_of
from taxlens.analysis.path.contraction import Tally
from taxlens.analysis.path.quadrature import LADDER, QuadratureRule, companion, cumulative, gauss_patterson, panelled

SMALL = 0.02
"""Taxes below this are judged by an absolute bound: tolerance * SMALL."""

Gradient = Callable[[float], tuple[Tally, np.ndarray]]
"""One gradient at time t: its tally and the rows' scores."""


Before = tuple[QuadratureRule, dict[str, Chained], dict[str, np.ndarray]]
"""The coarser rule that a rule is judged against: itself, its weights by metric, its mean effects by metric."""


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """How a shard's rows are the choices of its items.

    Args:
        item, choice: of each row, int64 [rows], items counted within the shard.
        gold: index of the right choice, int64 [items].
        n_bytes: bytes of each choice, float64 [items, choices], NaN for no choice.
    """

    item: np.ndarray
    choice: np.ndarray
    gold: np.ndarray
    n_bytes: np.ndarray

    def table(self, rows: np.ndarray) -> np.ndarray:
        """Values of rows [..., rows] as [..., items, choices], NaN where an item has no such choice."""
        out = np.full((*rows.shape[:-1], *self.n_bytes.shape), np.nan)
        out[..., self.item, self.choice] = rows
        return out


@dataclass(slots=True, eq=False)
class Walked:
    """What a shard's walk found.

    Args:
        path: scores along the path at the finest rule.
        tallies: at its nodes.
        chained: by metric, weights at the finest rule.
        coarse: (tallies, weights by metric) of the rule before, or None.
        gradients, forwards: passes over the shard.
        closed: whether every stop rule was met.
        reason: the rule that was not met.
        measured: by node, each row's score by the forward pass [nodes, rows].
        coarse_rule: the rule before, or None.
    """

    path: Path
    tallies: list[Tally]
    chained: dict[str, Chained]
    coarse: tuple[list[Tally], dict[str, np.ndarray]] | None
    gradients: int
    forwards: int
    closed: bool
    reason: str
    measured: np.ndarray
    coarse_rule: QuadratureRule | None = None


@dataclass(slots=True, eq=False)
class Walker:
    """Walks a shard through nested rules until its effects settle.

    Args:
        gradient: one gradient at a time t.
        ends: the rows' scores at t = 0 and 1, float64 [rows] each.
        choices: which rows are whose choices.
        metrics: names, or names of functions in `functions`.
        functions: gradients of user metrics by name.
        tolerance: largest change of effects (L1, share of the tax) and, halved, end-point error of the scores.
        max_gradients: most nodes.
        note: told the state after each rule.
        scores: the rows' scores at a time t by a plain forward pass [rows]: a truth at the ends between panels.
        hopeless: why no rule can close the account, if that is known: the walk then stops at its first rule.
    """

    gradient: Gradient
    ends: tuple[np.ndarray, np.ndarray]
    choices: Choices
    metrics: Sequence[str]
    functions: dict[str, ScoreMetric] = field(default_factory=dict)
    tolerance: float = 0.01
    max_gradients: int = 32
    note: Callable[[str], None] = lambda text: None
    scores: Callable[[float], np.ndarray] | None = None
    hopeless: Callable[[], str] = lambda: ""
    seen: dict[float, tuple[Tally, np.ndarray]] = field(default_factory=dict)
    truths: dict[float, np.ndarray] = field(default_factory=dict)

    def run(self, rules: Sequence[QuadratureRule] | None = None) -> Walked:
        """Walk rule after rule, each finer than the one before, and stop at the first that closes."""
        ladder = list(rules) if rules else ladder_of(self.max_gradients)
        before: Before | None = None
        for number, rule in enumerate(ladder):
            path, chained, effects = self._chained(rule)
            inner = None if rules else companion(rule)
            if inner is not None:
                before = (inner, *self._chained(inner)[1:])
            reason = self._unmet(path, chained, effects, before[2] if before else None)
            self.note(reason or "closed")
            reason = (self.hopeless() or reason) if reason else reason
            if not reason or number == len(ladder) - 1 or self.hopeless():
                return self._result(rule, path, chained, before, reason)
            before = (rule, chained, effects)
        raise AssertionError("a ladder has at least one rule")

    def _chained(self, rule: QuadratureRule) -> tuple[Path, dict[str, Chained], dict[str, np.ndarray]]:
        """A rule's scores, each metric's weights, and the mean effects of the components."""
        path = self._path(rule)
        chained = {m: chain(path, self.functions.get(m, m)) for m in self.metrics}
        return path, chained, {m: self._mean_effects(rule, c.weights) for m, c in chained.items()}

    def _path(self, rule: QuadratureRule) -> Path:
        slopes = []
        for t in rule.nodes:
            if float(t) not in self.seen:
                self.seen[float(t)] = self.gradient(float(t))
            slopes.append(self.seen[float(t)][0].units["component"].double().sum(1).numpy())
        table = self.choices.table
        ends = [table(end) for end in self.ends]
        return Path(rule, ends[0], ends[1], table(np.stack(slopes)), self.choices.gold, self.choices.n_bytes)

    def _mean_effects(self, rule: QuadratureRule, weights: np.ndarray) -> np.ndarray:
        """Mean over items of each component's effect, float64 [components]."""
        spread = weights[:, self.choices.item, self.choices.choice]
        total = sum(w @ self.seen[float(t)][0].units["component"].double().numpy() for t, w in zip(rule.nodes, spread))
        return np.asarray(total) / len(self.choices.gold)

    def _unmet(
        self,
        path: Path,
        chained: dict[str, Chained],
        effects: dict[str, np.ndarray],
        before: dict[str, np.ndarray] | None,
    ) -> str:
        """The first stop rule that is not met, in words; empty where all are."""
        if path.end_error() > self.tolerance / 2:
            return f"scores at t = 1 are off by {path.end_error():.2%} of their move"
        t, error = self._inner_error(path)
        if error > self.tolerance / 2:
            return f"scores at t = {t:g}, between panels, are off by {error:.2%} of their move"
        if before is None and len(path.rule.nodes) > 1:
            return "one rule has nothing to be compared with"
        for metric in chained:
            tax = float(np.mean(change(path, self.functions.get(metric, metric))))
            scale = max(abs(tax), SMALL)
            if abs(effects[metric].sum() - tax) > self.tolerance * scale:
                return f"{metric} closes to {abs(effects[metric].sum() - tax) / scale:.2%}"
            moved = np.abs(effects[metric] - before[metric]).sum() if before else 0.0
            if moved > self.tolerance * scale:
                return f"{metric} effects still change by {moved / scale:.2%}"
        return ""

    def _inner_error(self, path: Path) -> tuple[float, float]:
        """Where between panels the predicted scores are furthest from a forward pass, and by how much of their move."""
        moved = float(np.nansum(np.abs(path.end - path.start)))
        worst = (0.0, 0.0)
        for panel in path.rule.panels[:-1]:
            if self.scores is None or not moved:
                break
            if panel.end not in self.truths:
                self.truths[panel.end] = self.scores(panel.end)
            predicted = path.start + np.tensordot(
                cumulative(path.rule, np.array([panel.end]))[:, 0], path.slopes, axes=1
            )
            error = float(np.nansum(np.abs(predicted - self.choices.table(self.truths[panel.end])))) / moved
            worst = max(worst, (panel.end, error), key=lambda found: found[1])
        return worst

    def _result(
        self,
        rule: QuadratureRule,
        path: Path,
        chained: dict[str, Chained],
        before: Before | None,
        reason: str,
    ) -> Walked:
        coarse = None
        if before:
            weights = {metric: found.weights for metric, found in before[1].items()}
            coarse = ([self.seen[float(t)][0] for t in before[0].nodes], weights)
        seen = [self.seen[float(t)] for t in rule.nodes]
        tallies, measured = [tally for tally, _ in seen], np.stack([scores for _, scores in seen])
        passes = len(self.seen), len(self.seen) + len(self.truths) + 2
        rule_before = before[0] if before else None
        return Walked(path, tallies, chained, coarse, *passes, not reason, reason, measured, rule_before)


def ladder_of(max_gradients: int) -> list[QuadratureRule]:
    """Return the rules to try, finer and finer, that together take at most `max_gradients` nodes.

    Nested rules on the whole path first. Where they do not suffice (scores that are not smooth), 2, 4, 8... panels
    of 15 nodes each, whose nodes are new.
    """
    rules = [gauss_patterson(n) for n in LADDER if n <= max_gradients] or [gauss_patterson(1)]
    used, pieces = len(rules[-1].nodes), 2
    while len(rules) >= len(LADDER) and used + 15 * pieces <= max_gradients:
        rules.append(panelled(15, np.linspace(0.0, 1.0, pieces + 1).tolist()))
        used, pieces = used + 15 * pieces, 2 * pieces
    return rules


def change(path: Path, metric: str | ScoreMetric, *, ends: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """What each item's metric changed by from t = 0 to 1, float64 [items]; not signed as a loss.

    Args:
        path: scores along the path.
        metric: a metric's name, or a user metric.
        ends: scores [items, choices] to take instead of the path's own ends.
    """
    start, end = ends or (path.start, path.end)
    return values_of(metric, end, path.gold, path.n_bytes) - values_of(metric, start, path.gold, path.n_bytes)


def loss_sign(metric: str | ScoreMetric) -> float:
    """Sign that makes a fall of the metric (a rise of nll) a positive loss."""
    return as_metric(metric).sign
