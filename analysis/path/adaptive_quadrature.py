"""Node by node until the account closes: the adaptive walk of one shard of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from taxlens.analysis.path.chain_rule import Chained, Path, ScoreMetric, as_metric, chain, values_of
from taxlens.analysis.path.contraction import Tally
from taxlens.analysis.path.quadrature import LADDER, QuadratureRule, companion, cumulative, gauss_patterson, panelled

if TYPE_CHECKING:
    from taxlens.analysis.path.attribution import SuiteEffects

SMALL = 0.02
"""Taxes below this are judged by an absolute bound: tolerance * SMALL."""

Gradient = Callable[[float], tuple[Tally, np.ndarray]]
"""One gradient at time t: its tally and the rows' scores."""


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


@dataclass(frozen=True, slots=True, eq=False)
class RuleAccount:
    """What one rule leaves open on some items: sums over them.

    Args:
        items: how many.
        missed: error of the scores predicted at t = 1, nats.
        moved: how far the scores moved, nats.
        inner: by time between panels, error of the scores predicted there, nats.
        taxes: change by metric.
        effects: by metric, of each component [components].
        before: the same by the coarser rule, or None.
        hopeless: why no rule can close the account, or blank.
    """

    items: int
    missed: float
    moved: float
    inner: Mapping[float, float]
    taxes: Mapping[str, float]
    effects: Mapping[str, np.ndarray]
    before: Mapping[str, np.ndarray] | None = None
    hopeless: str = ""


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
    chains: dict[tuple[float, ...], tuple[Path, dict[str, Chained], dict[str, np.ndarray]]] = field(
        default_factory=dict
    )

    def run(self, rules: Sequence[QuadratureRule] | None = None) -> Walked:
        """Walk rule after rule, each finer than the one before, and stop at the first that closes."""
        ladder = list(rules) if rules else ladder_of(self.max_gradients)
        for number, rule in enumerate(ladder):
            before = rule_before(ladder, number, given=bool(rules))
            account = self.account(rule, before)
            reason = unmet([account], self.tolerance, nodes=len(rule.nodes))
            self.note(f"after {len(self.seen)} gradients: {reason}" if reason else "closed")
            reason = (account.hopeless or reason) if reason else reason
            if not reason or number == len(ladder) - 1 or account.hopeless:
                return self.result(rule, before, reason)
        raise AssertionError("a ladder has at least one rule")

    def account(self, rule: QuadratureRule, before: QuadratureRule | None) -> RuleAccount:
        """What a rule leaves open on these items, as sums: those of several shards add up to the suite's."""
        path, chained, effects = self._held(rule)
        missed, inner = np.abs(path.predicted_end() - path.end), self._inner_errors(path)
        taxes = {m: float(np.sum(change(path, self.functions.get(m, m)))) for m in chained}
        coarse = None if before is None else self._held(before)[2]
        moved = float(np.nansum(np.abs(path.end - path.start)))
        return RuleAccount(
            len(path.gold), float(np.nansum(missed)), moved, inner, taxes, effects, coarse, self.hopeless()
        )

    def result(self, rule: QuadratureRule, before: QuadratureRule | None, reason: str) -> Walked:
        """What the walk found by a rule, whose account is left open for a reason (blank: it is closed)."""
        path, chained, _ = self._held(rule)
        coarse = None
        if before is not None:
            weights = {metric: found.weights for metric, found in self._held(before)[1].items()}
            coarse = ([self.seen[float(t)][0] for t in before.nodes], weights)
        seen = [self.seen[float(t)] for t in rule.nodes]
        tallies, measured = [tally for tally, _ in seen], np.stack([scores for _, scores in seen])
        passes = len(self.seen), len(self.seen) + len(self.truths) + 2
        return Walked(path, tallies, chained, coarse, *passes, not reason, reason, measured, before)

    def _held(self, rule: QuadratureRule) -> tuple[Path, dict[str, Chained], dict[str, np.ndarray]]:
        key = tuple(float(t) for t in rule.nodes)
        if key not in self.chains:
            self.chains[key] = self._chained(rule)
        return self.chains[key]

    def _chained(self, rule: QuadratureRule) -> tuple[Path, dict[str, Chained], dict[str, np.ndarray]]:
        """A rule's scores, each metric's weights, and the effects of the components, summed over items."""
        path = self._path(rule)
        chained = {m: chain(path, self.functions.get(m, m)) for m in self.metrics}
        return path, chained, {m: self._effects(rule, c.weights) for m, c in chained.items()}

    def _path(self, rule: QuadratureRule) -> Path:
        slopes = []
        for t in rule.nodes:
            if float(t) not in self.seen:
                done = sum(float(node) in self.seen for node in rule.nodes)
                self.note(f"gradient {done + 1} of {len(rule.nodes)} (at most {self.max_gradients})")
                self.seen[float(t)] = self.gradient(float(t))
            slopes.append(self.seen[float(t)][0].units["component"].double().sum(1).numpy())
        table = self.choices.table
        ends = [table(end) for end in self.ends]
        return Path(rule, ends[0], ends[1], table(np.stack(slopes)), self.choices.gold, self.choices.n_bytes)

    def _effects(self, rule: QuadratureRule, weights: np.ndarray) -> np.ndarray:
        """Each component's effect summed over items, float64 [components]."""
        spread = weights[:, self.choices.item, self.choices.choice]
        return np.asarray(
            sum(w @ self.seen[float(t)][0].units["component"].double().numpy() for t, w in zip(rule.nodes, spread))
        )

    def _inner_errors(self, path: Path) -> dict[float, float]:
        """By end of each panel but the last, how far predicted scores are from a forward pass there, summed."""
        found: dict[float, float] = {}
        for panel in path.rule.panels[:-1]:
            if self.scores is None:
                break
            if panel.end not in self.truths:
                self.truths[panel.end] = self.scores(panel.end)
            predicted = path.start + np.tensordot(
                cumulative(path.rule, np.array([panel.end]))[:, 0], path.slopes, axes=1
            )
            found[panel.end] = float(np.nansum(np.abs(predicted - self.choices.table(self.truths[panel.end]))))
        return found


def rule_before(ladder: Sequence[QuadratureRule], number: int, *, given: bool) -> QuadratureRule | None:
    """The coarser rule that a rule of a ladder is judged against; None: there is nothing to compare it with.

    Args:
        ladder: the rules.
        number: which of them.
        given: whether a user named the rules: each is then judged against the one before.
    """
    inner = None if given else companion(ladder[number])
    return inner if inner is not None or number == 0 else ladder[number - 1]


def unmet(accounts: Sequence[RuleAccount], tolerance: float, *, nodes: int) -> str:
    """The first stop rule that all shards of a suite together do not meet, in words; blank where all are met.

    Args:
        accounts: of each shard, by one rule: however the items are cut, the sums are the suite's.
        tolerance: see `Walker`.
        nodes: of the rule.
    """
    moved, count = sum(one.moved for one in accounts), sum(one.items for one in accounts)
    share = sum(one.missed for one in accounts) / moved if moved else 0.0
    if share > tolerance / 2:
        return f"scores at t = 1 are off by {share:.2%} of their move"
    inner = {t: sum(one.inner[t] for one in accounts) / moved if moved else 0.0 for t in accounts[0].inner}
    if inner and max(inner.values()) > tolerance / 2:
        t = max(inner, key=lambda place: inner[place])
        return f"scores at t = {t:g}, between panels, are off by {inner[t]:.2%} of their move"
    if nodes > 1 and any(one.before is None for one in accounts):
        return "effects of one rule alone, with no other rule to compare them with"
    for metric in accounts[0].taxes:
        tax = sum(one.taxes[metric] for one in accounts) / count
        effects = np.sum([one.effects[metric] for one in accounts], axis=0) / count
        scale = max(abs(tax), SMALL)
        if abs(effects.sum() - tax) > tolerance * scale:
            return f"{metric} closes to {abs(effects.sum() - tax) / scale:.2%}"
        coarse = [one.before[metric] for one in accounts if one.before is not None]
        changed = np.abs(effects - np.sum(coarse, axis=0) / count).sum() if coarse else 0.0
        if changed > tolerance * scale:
            return f"{metric} effects still change by {changed / scale:.2%}"
    return ""


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


def unresolved(found: SuiteEffects, tolerance: float) -> np.ndarray:
    """Places of the items whose scores at t = 1 are off by more than half the tolerance of the mean item's move.

    The stopping rule looks at all items together; a few whose scores bend more than the others' pass under it.
    """
    return np.flatnonzero(found.missed > tolerance / 2 * float(found.moved.mean()))


def finer_rules(gradients: int, most: int) -> list[QuadratureRule]:
    """Nested rules to walk again with after `gradients` nodes, none larger than `most`; empty where there is none."""
    sizes = [size for size in LADDER if size <= most]
    return [gauss_patterson(size) for size in sizes if size >= gradients] if max(sizes, default=0) > gradients else []
