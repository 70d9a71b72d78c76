"""Orders of plans: how the units that a plan undoes are chosen. Light: config, figures and report read it too."""

from __future__ import annotations

from dataclasses import dataclass

from taxlens.core.errors import UsageError, explain


@dataclass(frozen=True, slots=True)
class Order:
    """What is known of an order of plans.

    Args:
        name: its name in frontier.csv and configs.
        words: how its units are chosen, as a methods paragraph says it, with its citation.
        per_share: plans that one share makes, for the estimate of the cost; 0: it does not look at the shares.
    """

    name: str
    words: str = ""
    per_share: int = 1


ORDERS: dict[str, Order] = {}
"""Every order by name, as figures list them."""


def register_order(order: Order) -> Order:
    """Make an order known to config, figures and report.

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
    Order("path"),
    Order("one_gradient", "one gradient at the aligned weights"),
    Order("magnitude", "largest singular values first \\citep{shuttleworth2025lora}"),
    Order("random", "random units of equal energy", per_share=0),
    Order("uniform", "a uniform sweep \\citep{lin2024mitigating}", per_share=0),
    Order("per_layer", "per-layer coefficients"),
    Order("smallest", "smallest first \\citep{abro2026spectral}"),
    Order("learned_mask", "a learned mask \\citep{he2024localize}"),
    Order("weight_patch", "whole-module weight patching \\citep{sun2026weight}"),
    Order("checkpoint", "earlier checkpoints of the same training", per_share=0),
    Order("relearn", "relearning on the same items \\citep{zheng2025spurious}", per_share=0),
    Order("reverse", "the path's order reversed"),
):
    register_order(_order)
