"""How many items and groups it takes to see a tax, and what a measured suite could have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from taxlens.analysis.tax.ledger import Paired
from taxlens.analysis.tax.tax_tables import POWER
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import cluster_standard_error, group_index

POINTS = (0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Needed:
    """What a tax needs to be seen.

    Attributes:
        n_items: items, in groups of the stated size.
        n_groups: groups.
        design_effect: variance of the grouped mean over that of as many independent items.
        standard_error: of the tax with that many items.
    """

    n_items: int
    n_groups: int
    design_effect: float
    standard_error: float


def items_needed(
    tax: float,
    *,
    changed: float,
    group_size: float = 1.0,
    icc: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
) -> Needed:
    """How many items and groups a two-sided paired test needs to see a tax in accuracy.

    The variance of an item's difference is changed - tax^2: only items that change carry
    noise, which is why pairing pays. Groups multiply it by 1 + (size - 1) icc.

    Args:
        tax: the tax to be seen, in 0..1 (0.05 is five points).
        changed: share of items right in one model only (lost plus won); at least ``tax``.
        group_size: items a group.
        icc: correlation of the differences of two items of a group, 0..1.
        power: probability of seeing it.
        alpha: level of the test.

    Returns:
        Needed.

    Raises:
        UsageError: a tax of 0, or more tax than items changed.

    Example:
        >>> items_needed(0.05, changed=0.15).n_items
        464

    References:
        Miller 2024, arXiv 2411.00640, section 5; Kish 1965 (design effect).
    """
    if not 0 < abs(tax) <= changed <= 1:
        rows = [("tax", tax), ("changed", changed)]
        raise UsageError(explain("needs 0 < tax <= changed <= 1.", rows, "changed = (lost + won) / items"))
    design = 1 + (group_size - 1) * icc
    variance = changed - tax**2
    reach = ndtri(1 - alpha / 2) + ndtri(power)
    n_items = max(2, int(np.ceil(reach**2 * variance * design / tax**2)))
    n_groups = int(np.ceil(n_items / group_size))
    return Needed(n_items, n_groups, float(design), float(np.sqrt(variance * design / n_items)))


@dataclass(frozen=True, slots=True, repr=False)
class Power(Result):
    """What measured suites could have seen: table by suite, template and size of tax.

    Attributes:
        frame: one row a suite, template, metric and tax: power to see it with the items at
            hand, items and groups needed for 80 %, the smallest tax seen with 80 %.
    """

    figure: ClassVar[str] = "power"

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row a suite, template, metric and size of tax."""
        return self.frame.copy()

    def __repr__(self) -> str:
        first = self.frame.drop_duplicates(["suite", "template", "metric"])
        parts = (
            f"{r.suite} ({r.template}, {r.metric}) sees {r.smallest_seen:.3g} with n={r.n_items} items "
            f"in {r.n_groups} groups"
            for r in first.itertuples()
        )
        return "Power: " + "; ".join(parts)


def measured_power(
    measured: Sequence[Paired],
    *,
    metric: str = "accuracy",
    taxes: Sequence[float] = POINTS,
    power: float = 0.8,
    alpha: float = 0.05,
) -> Power:
    """What each measured suite could have seen, from its own paired, grouped standard error.

    Not to be read as power after the fact for the tax that was measured: it says which sizes
    of tax the suite's items and groups can tell from none. An error of 0 (no item changed)
    says nothing, and its rows are NaN.

    Args:
        measured: one entry a suite and template.
        metric: which metric.
        taxes: sizes of tax, in the metric's units.
        power: probability of seeing it that ``items_needed`` stands for.
        alpha: level of the test.

    Returns:
        Power.
    """
    reach = ndtri(1 - alpha / 2) + ndtri(power)
    rows = []
    for paired in measured:
        error = cluster_standard_error(paired.loss(metric), paired.groups) or float("nan")
        n_items, (_, n_groups) = len(paired.items), group_index(paired.groups)
        for tax in taxes:
            needed = n_items * (reach * error / tax) ** 2
            rows.append(
                {
                    "suite": paired.suite,
                    "template": paired.template,
                    "metric": metric,
                    "tax": tax,
                    "power": float(ndtr(tax / error - ndtri(1 - alpha / 2))),
                    "items_needed": np.ceil(needed),
                    "groups_needed": np.ceil(needed * n_groups / n_items),
                    "smallest_seen": reach * error,
                    "icc": within_group_correlation(paired.loss(metric), paired.groups),
                    "n_items": n_items,
                    "n_groups": n_groups,
                }
            )
    return Power(POWER.frame(rows))


def within_group_correlation(values: np.ndarray, groups: np.ndarray) -> float:
    """Correlation of two items of one group, by one-way analysis of variance; at least 0.

    Args:
        values: [n].
        groups: [n].

    Returns:
        In 0..1; NaN where no group has two items or nothing varies.
    """
    index, n_groups = group_index(groups)
    n, sizes = len(index), np.bincount(index, minlength=n_groups)
    if n == n_groups or n_groups < 2:
        return float("nan")
    means = np.bincount(index, values, n_groups) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (n_groups - 1)
    within = ((values - means[index]) ** 2).sum() / (n - n_groups)
    size = (n - (sizes**2).sum() / n) / (n_groups - 1)
    total = between + (size - 1) * within
    return float(max(0.0, (between - within) / total)) if total > 0 else float("nan")
