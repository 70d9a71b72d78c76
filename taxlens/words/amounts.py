"""Amounts in the unit of their metric: points for shares, nats for log-probabilities. The only home of a metric's unit."""

from __future__ import annotations

import math

NATS = ("nll", "margin", "kl", "prior_kl")
"""Metrics in nats; all others are shares, shown in points."""


def unit_of(metric: str) -> tuple[str, float]:
    """Return the unit that a metric is shown in, and the factor from the table's unit to it."""
    return ("nats", 1.0) if metric in NATS else ("points", 100.0)


def digits_of(metric: str) -> int:
    """Return how many digits after the point a metric is printed with in its unit."""
    return 2 if metric in NATS else 1


def bare(value: float, metric: str) -> str:
    """Return a value in the metric's unit without the unit: "12.4", "0.31"; never "-0.0"."""
    said = f"{value:.3g}" if metric in NATS else f"{100 * value:.1f}"
    return said.lstrip("-") if float(said) == 0 else said


def amount(value: float, metric: str) -> str:
    """Return a loss as read aloud: "12.4 points", "0.31 nats"."""
    return f"{bare(value, metric)} {unit_of(metric)[0]}"


def signed(value: float, metric: str) -> str:
    """Return a value with its sign as terminals show it: "+12.4", "+0.310"; "-" where it is undefined."""
    if not math.isfinite(value):
        return "-"
    return f"{value:+.3f}" if metric in NATS else f"{100 * value:+.1f}"


def bracketed(low: float, high: float, metric: str) -> str:
    """Return an interval in the metric's unit: "[1.2, 3.4]"."""
    return f"[{bare(low, metric)}, {bare(high, metric)}]"
