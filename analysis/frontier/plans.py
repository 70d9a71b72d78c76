"""Plans that undo part of a weight difference: who goes first, how many, and with which coefficient.

Every order sees the same training half. Orders by effect (path, one_gradient) take the units with the largest
effect on the tax, less a price on the benefit that is raised until the plan is predicted to keep the wanted
share of it; orders by size see no item at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import linprog

from taxlens.analysis.weights.units import Difference
from taxlens.core.errors import UsageError, explain

Open = Callable[[], AbstractContextManager[Any]]
"""Opens the model that a plan describes, for plans that are no mixture of the pair's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to undo, and how much of the update that is.

    Args:
        name: unique, as in frontier.csv ("path-2.5%", "random-1%-d07").
        unit: level of the units.
        order: how the units were chosen.
        undo: unit name to coefficient in [0, 1].
        n_units: units with a coefficient above 0.
        share_undone: sum of coefficients over the number of units that could be undone.
        energy_undone: squared norm of what is taken away over that of the whole difference.
        draw: number of the random draw, -1 where nothing is drawn.
        left_out: suite that the choice did not see, blank where it saw all.
        open: opens the model of a plan that is no mixture (checkpoint, relearn).
    """

    name: str
    unit: str
    order: str
    undo: Mapping[str, float]
    n_units: int
    share_undone: float
    energy_undone: float
    draw: int = -1
    left_out: str = ""
    open: Open | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units that plans choose from: those that changed, with the energy of each.

    Args:
        level: their level.
        names: unit names.
        layers: block index of each, -1 outside the blocks.
        energy: squared norm of each unit's change, float64 [units]; sigma squared for a singular triple.
    """

    level: str
    names: tuple[str, ...]
    layers: np.ndarray
    energy: np.ndarray

    @property
    def total(self) -> float:
        """Squared norm of all of them together."""
        return float(self.energy.sum())

    def plan(self, name: str, order: str, coefficients: np.ndarray, *, draw: int = -1, left_out: str = "") -> Plan:
        """The plan that undoes each unit by its coefficient, float64 [units]."""
        chosen = np.flatnonzero(coefficients > 0)
        return Plan(
            name=name, unit=self.level, order=order, draw=draw, left_out=left_out,
            undo={self.names[i]: float(coefficients[i]) for i in chosen},
            n_units=len(chosen),
            share_undone=float(coefficients.sum() / len(self.names)),
            energy_undone=float((coefficients**2) @ self.energy / self.total),
        )  # fmt: skip


def changed_units(difference: Difference, level: str) -> Units:
    """The units of a level that changed at all.

    Raises:
        UsageError: nothing changed: the two checkpoints are the same.
    """
    units = difference.units(level)
    energy = np.array([difference.energy(name, level=level) for name in units])
    kept = np.flatnonzero(energy > 0)
    if not len(kept):
        fix = "compare two checkpoints that differ."
        raise UsageError(explain("the two checkpoints have the same weights: there is nothing to undo.", (), fix))
    names = list(units)
    layers = np.array([unit.layer for unit in units.values()])
    return Units(level, tuple(names[i] for i in kept), layers[kept], energy[kept])


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What each unit is predicted to cost and to bring.

    Args:
        tax: loss that the unit explains, summed over the taxed suites, float64 [units].
        benefit: selective benefit that the unit brings, nats, float64 [units].
        benefit_total: the benefit that alignment raised, nats.
        by_suite: the same loss suite by suite.
        local: the benefit again, by one gradient at the aligned weights; None: not had. What a plan really costs
            lies between the two: the path averages over all of the change, the gradient sees its last step.
        harm: refusals of harmful prompts alone, nats that the unit brought; None: not told apart from the benefit.
        harm_total: all that alignment brought of them, nats.
        harm_local: the same by one gradient.
    """

    tax: np.ndarray
    benefit: np.ndarray
    benefit_total: float
    by_suite: Mapping[str, np.ndarray] = field(default_factory=dict)
    local: np.ndarray | None = None
    harm: np.ndarray | None = None
    harm_total: float = 0.0
    harm_local: np.ndarray | None = None

    @property
    def benefits(self) -> list[np.ndarray]:
        """Every estimate of the benefit by unit."""
        return [self.benefit] if self.local is None else [self.benefit, self.local]

    @property
    def shares(self) -> list[np.ndarray]:
        """What a unit holds of the benefit, and of harm alone, as shares of each total, by every estimate.

        The benefit is a difference: a refusal lost on harm is hidden in it by one lost on harmless prompts. So harm is
        there by itself.
        """
        found = [benefit / self.benefit_total for benefit in self.benefits] if self.benefit_total > 0 else []
        if self.harm_total > 0:
            found += [harm / self.harm_total for harm in (self.harm, self.harm_local) if harm is not None]
        return found

    def without(self, suite: str) -> Scores:
        """The same with one suite left out of the tax."""
        rest = {name: value for name, value in self.by_suite.items() if name != suite}
        return replace(self, tax=np.sum(list(rest.values()), axis=0), by_suite=rest)


def best_coefficients(
    scores: Scores, *, count: float, keep: float | None, cost: np.ndarray | None = None
) -> np.ndarray:
    """Coefficients in [0, 1] with the largest predicted tax returned, within a budget and a benefit to keep.

    The linear programme max tax . a, subject to cost . a <= count, benefit . a <= (1 - keep) * benefit_total and
    harm . a <= (1 - keep) * harm_total, the last two by every estimate. At an optimum at most as many coefficients are fractional as there
    are bounds, so with a unit cost this is "the best `count` units".

    Args:
        scores: effects of the units.
        count: the budget.
        keep: share of the benefit that must be predicted to stay, above 1 for a gain; None: no such bound. Where no
            plan within the budget is predicted to keep that much, the one that keeps most is given.
        cost: what each unit costs of the budget; 1 each by default.

    Returns:
        float64 [units].
    """
    cost = np.ones(len(scores.tax)) if cost is None else cost
    rows, bounds = [cost], [count]
    if keep is not None:
        rows += scores.shares
        bounds += [1.0 - keep] * len(scores.shares)
    scale = float(np.abs(scores.tax).max()) or 1.0
    found = linprog(-scores.tax / scale, A_ub=np.array(rows), b_ub=bounds, bounds=(0, 1), method="highs")
    if not found.success:  # more than can be kept within the budget: the plan that is predicted to keep most
        lost = np.sum(rows[1:], axis=0)
        found = linprog(lost, A_ub=cost[None], b_ub=[count], bounds=(0, 1), method="highs")
    return np.where(found.x < 1e-9, 0.0, found.x)


def effect_plans(
    units: Units, scores: Scores, *, order: str, shares: Sequence[float], keep: float | None, left_out: str = "",
    suffix: str = "",
) -> list[Plan]:  # fmt: skip
    """One plan a share, best predicted units first ("path" and "one_gradient" differ in their scores alone)."""
    plans = []
    for share in shares:
        count = wanted_count(units, share)
        name = plan_name(order, share) + suffix + (f"-without-{left_out}" if left_out else "")
        coefficients = best_coefficients(scores, count=count, keep=keep)
        plans.append(units.plan(name, order, coefficients, left_out=left_out))
    return plans


def ranked_plans(units: Units, key: np.ndarray, *, order: str, shares: Sequence[float]) -> list[Plan]:
    """One plan a share, units with the largest key first, whole units."""
    ranking = np.argsort(-key, kind="stable")
    plans = []
    for share in shares:
        coefficients = np.zeros(len(key))
        coefficients[ranking[: wanted_count(units, share)]] = 1.0
        plans.append(units.plan(plan_name(order, share), order, coefficients))
    return plans


def random_plans(units: Units, like: Iterable[Plan], *, draws: int, seed: int) -> list[Plan]:
    """For each plan, draws of random units with the same energy (within 2 %, or one unit)."""
    plans = []
    for plan in like:
        rng = np.random.default_rng([seed, plan.n_units])
        for draw in range(draws):
            coefficients = random_coefficients(units.energy, plan.energy_undone * units.total, rng)
            name = f"{plan.name.replace(plan.order, 'random', 1)}-d{draw:02d}"
            plans.append(units.plan(name, "random", coefficients, draw=draw))
    return plans


def random_coefficients(energy: np.ndarray, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """1 for units taken in random order while they fit in the wanted energy; the last one in part, to meet it."""
    coefficients, left = np.zeros(len(energy)), wanted
    order = rng.permutation(len(energy))
    for place in order:
        if energy[place] <= left:
            coefficients[place] = 1.0
            left -= energy[place]
        if left <= 0.02 * wanted:
            return coefficients
    spare = [p for p in order if coefficients[p] == 0 and energy[p] > left]
    if spare and left > 0:
        coefficients[spare[0]] = math.sqrt(left / energy[spare[0]])
    return coefficients


def uniform_plans(units: Units, coefficients: Sequence[float]) -> list[Plan]:
    """Every unit undone by the same coefficient: weights between aligned and base."""
    return [units.plan(f"uniform-{a:g}", "uniform", np.full(len(units.names), float(a))) for a in coefficients]


def layer_plans(
    units: Units, scores: Scores, *, like: Sequence[Plan], keep: float | None, extra: Sequence[float] = (0.1, 0.25),
    suffix: str = "",
) -> list[Plan]:  # fmt: skip
    """One coefficient a layer, optimised on the predicted front at the energies of other plans and at some more.

    Model averaging with layer coefficients (Lin et al. 2024), given the same effects as "path".
    """
    layers, index = np.unique(units.layers, return_inverse=True)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights=values, minlength=len(layers))

    local, harm, harm_local = (None if v is None else summed(v) for v in (scores.local, scores.harm, scores.harm_local))
    whole = Scores(
        summed(scores.tax), summed(scores.benefit), scores.benefit_total, local=local, harm=harm,
        harm_total=scores.harm_total, harm_local=harm_local,
    )  # fmt: skip
    cost = summed(units.energy) / units.total
    budgets = {plan.name.replace(plan.order, "per_layer", 1): plan.energy_undone for plan in like}
    budgets |= {f"per_layer-energy{share:g}": share for share in extra}
    plans = []
    for name, budget in budgets.items():
        coefficients = _at_energy(whole, cost, budget, keep)
        plans.append(units.plan(name + suffix, "per_layer", coefficients[index]))
    return plans


def _at_energy(scores: Scores, cost: np.ndarray, energy: float, keep: float | None) -> np.ndarray:
    """The best coefficients whose squares spend the wanted energy: the linear budget is searched for it."""
    low, high = energy, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        coefficients = best_coefficients(scores, count=middle, keep=keep, cost=cost)
        low, high = (low, middle) if coefficients**2 @ cost > energy else (middle, high)
    return best_coefficients(scores, count=low, keep=keep, cost=cost)


def wanted_count(units: Units, share: float) -> int:
    """Number of units that a share stands for, at least one.

    Raises:
        UsageError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(explain("a share of units must lie above 0 and up to 1.", [("got", share)], "0.025 is 2.5 %."))
    return max(1, math.ceil(share * len(units.names) - 1e-9))


def plan_name(order: str, share: float) -> str:
    """ "path-2.5%" for order "path" and share 0.025."""
    return f"{order}-{100 * share:g}%"
