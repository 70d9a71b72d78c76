"""What a frontier may be told: which units, how many, which orders, on how many items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taxlens.analysis.frontier.orders import order_names
from taxlens.core.errors import one_of
from taxlens.core.vocabularies import SPLIT_KEYS

DEFAULT_ORDERS = ("path", "one_gradient", "magnitude", "smallest", "random", "uniform")
"""Orders of a frontier that is not told otherwise."""

ANSWER_TOKENS = 96
"""Tokens that an answer by generation is taken to read and write, for the estimate of its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How plans are chosen and measured.

    Args:
        unit: "component", "head" or "singular".
        shares: of the units, undone in whole.
        orders: of `orders.ORDERS`.
        draws: random plans a share.
        draw_shares: shares that random plans are drawn at; None: all.
        uniform: coefficients of order "uniform".
        metric: that plans are chosen on.
        keep: share of the benefit that path and one_gradient plans are predicted to keep; None: they look at the
            tax alone.
        keeps: further shares of the benefit that path, one_gradient and per_layer plans are also chosen to keep
            ("path-5%-keep105%"): a prediction that runs ahead is met by asking for more.
        wanted, margin: of the recommended plan: share of the tax returned, share of the benefit kept.
        holdout: share of each suite that is held out.
        disjoint: what the halves share nothing of.
        leave_out: choose path plans without each taxed suite too, and measure on it.
        items, train_items: most held-out and training items a suite.
        generate: prompts of each kind answered by generation; 0: none.
        generate_plans: plans whose answers are generated; None: path and one_gradient.
        budget_minutes: held-out items are cut to fit.
        tolerance, max_gradients: of the attribution.
        bootstrap, seed: group-bootstrap draws, and every seed.
    """

    unit: str = "singular"
    shares: tuple[float, ...] = (0.01, 0.025, 0.05)
    orders: tuple[str, ...] = DEFAULT_ORDERS
    draws: int = 20
    draw_shares: tuple[float, ...] | None = None
    uniform: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    metric: str = "probability"
    keep: float | None = 0.95
    keeps: tuple[float, ...] = ()
    wanted: float = 0.9
    margin: float = 0.95
    holdout: float = 0.5
    disjoint: tuple[str, ...] = SPLIT_KEYS
    leave_out: bool = True
    items: int | str = "all"
    train_items: int | str = "all"
    generate: int = 0
    generate_plans: tuple[str, ...] | None = None
    budget_minutes: float | None = 40.0
    tolerance: float = 0.01
    max_gradients: int = 32
    bootstrap: int = 2000
    seed: int = 0


def ready_options(options: Options | None, more: Mapping[str, Any]) -> Options:
    """Options with single fields replaced.

    Raises:
        UsageError: an unknown field or order; the ones that exist are listed.
    """
    for name in more:
        one_of(name, list(Options.__dataclass_fields__), what="frontier option")
    given = {} if options is None else {name: getattr(options, name) for name in Options.__dataclass_fields__}
    ready = Options(**(given | dict(more)))
    for order in ready.orders:
        one_of(order, order_names(), what="order")
    return ready
