"""Amounts in the unit of their metric: points for shares, nats for log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from taxlens.analysis.scoring.metrics import shown_metric


def unit_of(metric: str) -> tuple[str, float]:
    """Return the unit that a metric is shown in, and the factor from the table's unit to it."""
    known = shown_metric(metric)
    return known.unit, known.scale


def units_of(metrics: Iterable[str]) -> str:
    """Return the units of some metrics, the first's first: "points (nll and margin in nats)"."""
    units: dict[str, list[str]] = {}
    for name in dict.fromkeys(metrics):
        units.setdefault(unit_of(name)[0] or "their own numbers", []).append(name)
    first, *others = units
    more = ", ".join(f"{' and '.join(units[unit])} in {unit}" for unit in others)
    return f"{first}{f' ({more})' if more else ''}"


def digits_of(metric: str) -> int:
    """Return how many digits after the point a metric is printed with in its unit."""
    return shown_metric(metric).digits


def bare(value: float, metric: str) -> str:
    """Return a value in the metric's unit without the unit: "12.4", "0.31"; never "-0.0"."""
    return shown_metric(metric).shown(value)


def amount(value: float, metric: str) -> str:
    """Return a loss as read aloud: "12.4 points", "0.31 nats"."""
    return f"{bare(value, metric)} {unit_of(metric)[0]}".rstrip()


def signed(value: float, metric: str) -> str:
    """Return a value with its sign as terminals show it: "+12.4", "+0.310"; "-" where it is undefined."""
    return shown_metric(metric).shown(value, sign=True) if math.isfinite(value) else "-"


def bracketed(low: float, high: float, metric: str) -> str:
    """Return an interval in the metric's unit: "[1.2, 3.4]"; in words where one group gives none."""
    return "(one group: no interval)" if math.isnan(low) else f"[{bare(low, metric)}, {bare(high, metric)}]"


def summing(total: float, parts: Sequence[float], metric: str, *, absorb: int = -1) -> tuple[str, list[str]]:
    """Return a total and its parts in the metric's unit, so that the printed parts add up to the printed total.

    Every part but one is printed as it is rounded anywhere else; the part at `absorb` takes what rounding leaves.

    Example:
        >>> summing(0.488, [0.335, 0.159, -0.0055], "probability")
        ('48.8', ['33.5', '15.9', '-0.6'])
    """
    known = shown_metric(metric)
    step = known.scale * 10**known.digits
    whole = [round(value * step) for value in parts]
    whole[absorb] += round(total * step) - sum(whole)
    return bare(total, metric), [bare(value / step, metric) for value in whole]


def levels(base: float, aligned: float, metric: str) -> str:
    """Return a metric under both models: "98.9 -> 50.1 %" for shares, "1.20 -> 2.31 nats" else."""
    unit = "%" if unit_of(metric)[0] == "points" else unit_of(metric)[0]
    return f"{bare(base, metric)} -> {bare(aligned, metric)} {unit}".rstrip()
