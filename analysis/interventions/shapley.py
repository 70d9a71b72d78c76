"""Shapley values of grafted weights: exact for few players, sampled in antithetic pairs for many."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.analysis.interventions.effects import UnitEffects
from taxlens.analysis.scoring.evaluator import MeasureFunction, losses
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import Difference, difference_of
from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

EXACT_PLAYERS = 10
"""Most players for which all coalitions are scored (1,024 models)."""

Game = Callable[[frozenset[int]], np.ndarray]
"""A coalition of player indices to its value: a number, or one an item."""


@dataclass(frozen=True, slots=True, eq=False)
class ShapleyShares:
    """Shapley values [players, ...], what each antithetic pair gave, and how many coalitions were scored.

    `drawn` is [pairs, players, ...] where sampled and [1, players, ...] where exact.
    """

    values: np.ndarray
    drawn: np.ndarray
    coalitions: int

    @property
    def error(self) -> np.ndarray:
        """Sampling standard error [players, ...]; 0 where exact."""
        return _standard_error(self.drawn)


def exact_shapley(game: Game, players: int) -> ShapleyShares:
    """Shapley values from all 2^n coalitions: they sum to game(all) - game(none) to rounding.

    Args:
        game: value of a coalition, a float64 array of any fixed shape.
        players: number of players, at most 20.

    Returns:
        values [players, ...], error 0.

    Raises:
        UsageError: too many players for 2^n coalitions.

    Example:
        >>> exact_shapley(lambda s: np.array(float(len(s) == 2)), 2).values.tolist()
        [0.5, 0.5]

    References:
        Shapley 1953.
    """
    if players == 0:
        return ShapleyShares(np.empty(0), np.empty((1, 0)), 0)
    if players > 20:
        rows = [("players", players), ("coalitions", f"2^{players}")]
        raise UsageError(explain("too many players for exact Shapley values.", rows, "sample, or group the players."))
    scored = np.stack([np.asarray(game(_members(code)), dtype=np.float64) for code in range(2**players)])
    sizes = np.array([code.bit_count() for code in range(2**players)])
    values = np.zeros((players, *scored.shape[1:]))
    for player in range(players):
        without = np.flatnonzero((np.arange(2**players) >> player) & 1 == 0)
        weights = np.array([1.0 / (players * math.comb(players - 1, int(k))) for k in sizes[without]])
        steps = scored[without | (1 << player)] - scored[without]
        values[player] = np.tensordot(weights, steps, axes=1)
    return ShapleyShares(values, values[None], 2**players)


def sampled_shapley(game: Game, players: int, *, pairs: int = 16, seed: int = 0) -> ShapleyShares:
    """Shapley values from random orders, each walked forwards and backwards (antithetic).

    Every walk's steps sum to game(all) - game(none), so the estimate closes exactly; the standard error is
    over the means of the pairs. Coalitions that recur are scored once.

    Args:
        game: value of a coalition.
        players: number of players.
        pairs: pairs of orders, at least 2 for an error.
        seed: of the orders.

    Returns:
        values and standard errors [players, ...].

    References:
        Castro, Gomez and Tejada 2009; antithetic permutations: Mitchell et al. 2022.
    """
    if pairs < 2:
        raise UsageError(explain("sampled Shapley values need at least 2 pairs of orders.", [("pairs", pairs)]))
    rng = np.random.default_rng(seed)
    memory: dict[frozenset[int], np.ndarray] = {}

    def value(coalition: frozenset[int]) -> np.ndarray:
        if coalition not in memory:
            memory[coalition] = np.asarray(game(coalition), dtype=np.float64)
        return memory[coalition]

    drawn = []
    for _ in range(pairs):
        order = rng.permutation(players)
        drawn.append((_walk(value, order) + _walk(value, order[::-1])) / 2)
    stacked = np.stack(drawn)
    return ShapleyShares(stacked.mean(axis=0), stacked, len(memory))


def shapley_effects(
    pair: ModelPair,
    measure: MeasureFunction,
    *,
    groups: Mapping[str, np.ndarray],
    players: Mapping[str, Sequence[str]] | None = None,
    level: str = "component",
    template: str = "plain",
    pairs: int = 16,
    difference: Difference | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> UnitEffects:
    """Shapley effects of the game "graft the changes of a set of units onto the base".

    Exact where at most 10 players changed, else sampled with a standard error. Players that did not change are
    dummies and get exactly 0 without being scored. The changes of units that no player holds stay in place on
    both sides, so let players cover the difference where effects are to sum to the tax.

    Args:
        pair: the two checkpoints.
        measure: what scores a model.
        groups: suite name to the group of each item.
        players: player name to the units it holds; by default each unit of the level is a player.
        level: level of the default players, and of the table's rows.
        template: the template that `measure` scores in, for the tables.
        pairs: antithetic pairs of orders where sampled.
        difference: the pair's weight difference, if it is at hand.
        draws: group-bootstrap draws.
        seed: of the orders and the bootstrap.
        progress: told of each model scored.

    Returns:
        Effects by player and item; `errors` holds the sampling error of the means where sampled.

    References:
        Data and model Shapley: Ghorbani and Zou 2019; Model Shapley, NeurIPS 2025.
    """
    difference = difference or difference_of(pair)
    held = dict(players) if players is not None else {name: (name,) for name in difference.units(level)}
    units = {name: [difference.unit(u, level=level) for u in members] for name, members in held.items()}
    moved = [name for name, members in units.items() if any(difference.moved(u) for u in members)]
    base = measure(pair.base.model)
    taxes = losses(measure(pair.aligned.model), base)
    exact = len(moved) <= EXACT_PLAYERS
    with progress.task("shapley", total=2 ** len(moved) if exact else None, unit="models") as task:

        def game(coalition: frozenset[int]) -> np.ndarray:
            undo = {u: 1.0 for i, name in enumerate(moved) if i not in coalition for u in held[name]}
            with mixture(pair, undo, difference=difference, level=level) as model:
                lost = losses(measure(model), base)
            task.advance(1)
            return np.concatenate([lost[key] for key in taxes])

        count = len(moved)
        shares = exact_shapley(game, count) if exact else sampled_shapley(game, count, pairs=pairs, seed=seed)
    values, errors = _by_key(shares, [list(held).index(name) for name in moved], len(held), taxes)
    return UnitEffects(
        method="shapley", level=level, template=template, units=tuple(held), values=values, errors=errors,
        layers=tuple(_common([u.layer for u in members], -1) for members in units.values()),
        kinds=tuple(_common([u.kind for u in members], "") for members in units.values()),
        taxes=taxes, groups=groups, forwards=shares.coalitions + 2, draws=draws, seed=seed,
    )  # fmt: skip


def _members(code: int) -> frozenset[int]:
    return frozenset(i for i in range(code.bit_length()) if code >> i & 1)


def _walk(value: Game, order: np.ndarray) -> np.ndarray:
    """Each player's step when players join in this order, [players, ...]."""
    steps: list[np.ndarray] = [np.empty(0)] * len(order)
    before = value(frozenset())
    for count, player in enumerate(order, start=1):
        after = value(frozenset(int(i) for i in order[:count]))
        steps[int(player)] = after - before
        before = after
    return np.stack(steps)


def _standard_error(drawn: np.ndarray) -> np.ndarray:
    if len(drawn) < 2:
        return np.zeros(drawn.shape[1:])
    return drawn.std(axis=0, ddof=1) / math.sqrt(len(drawn))


def _by_key(
    shares: ShapleyShares, places: list[int], players: int, taxes: Mapping[tuple[str, str], np.ndarray]
) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], np.ndarray]]:
    """Cut the joined items back into (suite, metric), with a column of zeros for players that did not change."""
    values, errors, start = {}, {}, 0
    for key, tax in taxes.items():
        stop = start + len(tax)
        values[key] = np.zeros((len(tax), players))
        errors[key] = np.zeros(players)
        if places:
            values[key][:, places] = shares.values[:, start:stop].T
            errors[key][places] = _standard_error(shares.drawn[:, :, start:stop].mean(axis=2))
        start = stop
    return values, errors


def _common(values: Sequence[Any], otherwise: Any) -> Any:
    return values[0] if len(set(values)) == 1 else otherwise
