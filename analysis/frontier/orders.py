"""Orders of plans: how the units that a plan undoes are chosen, and what makes such plans. Light: config, figures and report read it too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxlens.core.errors import UsageError, explain
from taxlens.core.lazy import Lazy

if TYPE_CHECKING:
    from taxlens.analysis.frontier.options import Options

_PLANS = "taxlens.analysis.frontier.order_plans"
_TRAINED = "taxlens.analysis.frontier.trained_plans"


def a_share(o: Options) -> int:
    """Return the number of plans of an order that makes one a share."""
    return len(o.shares)


def kept_shares(o: Options) -> int:
    """Return the number of plans of an order that makes one a share, and one for each further share to keep."""
    return len(o.shares) * (1 + len(o.keeps))


@dataclass(frozen=True, slots=True)
class Order:
    """An order of plans.

    Args:
        name: its name in frontier.csv and configs.
        plans: (`order_plans.PlanContext`) -> its plans.
        words: how its units are chosen, as a methods paragraph says it, with its citation.
        count: (`options.Options`) -> how many plans that makes, for the estimate of the cost.
        passes: (`trained_plans.LearningCost`) -> tokens read while its plans are made, counted in forward passes; None: none.
        by_share: whether its plans are named by their shares alone ("path-5%").
    """

    name: str
    plans: Lazy
    words: str = ""
    count: Callable[[Options], int] = a_share
    passes: Lazy | None = None
    by_share: bool = False


ORDERS: dict[str, Order] = {}
"""Every order by name, as figures list them."""


def register_order(order: Order) -> Order:
    """Make an order known to config, frontier, figures and report.

    Raises:
        UsageError: the name is taken.
    """
    if order.name in ORDERS:
        raise UsageError(explain("an order of this name is registered already.", [("order", order.name)]))
    ORDERS[order.name] = order
    return order


def order_names() -> tuple[str, ...]:
    """Return the names of all orders."""
    return tuple(ORDERS)


for _order in (
    Order("path", Lazy(f"{_PLANS}:path_plans"), count=kept_shares, by_share=True),
    Order(
        "one_gradient", Lazy(f"{_PLANS}:one_gradient_plans"), "one gradient at the aligned weights", kept_shares,
        by_share=True,
    ),
    Order(
        "magnitude", Lazy(f"{_PLANS}:magnitude_plans"), "largest singular values first \\citep{shuttleworth2025lora}",
        by_share=True,
    ),
    Order(
        "random", Lazy(f"{_PLANS}:drawn_plans"), "random units of equal energy",
        lambda o: o.draws * len(o.shares if o.draw_shares is None else o.draw_shares),
    ),
    Order(
        "uniform", Lazy(f"{_PLANS}:swept_plans"), "a uniform sweep \\citep{lin2024mitigating}", lambda o: len(o.uniform)
    ),
    Order(
        "per_layer", Lazy(f"{_PLANS}:per_layer_plans"), "per-layer coefficients", lambda o: kept_shares(o) + 2
    ),
    Order("smallest", Lazy(f"{_PLANS}:smallest_plans"), "smallest first \\citep{abro2026spectral}", by_share=True),
    Order(
        "learned_mask", Lazy(f"{_TRAINED}:mask_plans"), "a learned mask \\citep{he2024localize}",
        passes=Lazy(f"{_TRAINED}:mask_passes"),
    ),
    Order(
        "weight_patch", Lazy(f"{_TRAINED}:patch_plans"), "whole-module weight patching \\citep{sun2026weight}",
        passes=Lazy(f"{_TRAINED}:patch_passes"),
    ),
    Order(
        "checkpoint", Lazy(f"{_TRAINED}:checkpoint_plans"), "earlier checkpoints of the same training", lambda o: 0
    ),
    Order(
        "relearn", Lazy(f"{_TRAINED}:relearn_plans"), "relearning on the same items \\citep{zheng2025spurious}",
        lambda o: 1, Lazy(f"{_TRAINED}:relearn_passes"),
    ),
    Order("reverse", Lazy(f"{_PLANS}:reverse_plans"), "the path's order reversed", by_share=True),
):  # fmt: skip
    register_order(_order)
