"""What the options of the frontier must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.frontier.frontier_section import FrontierSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_frontier(context: CheckContext, section: FrontierSection) -> None:
    """Refuse suites, plans, shares and checkpoints that are not there.

    Raises:
        ConfigError: naming the key and what it must be.
    """
    from taxlens.stages.frontier.frontier_run import benefit_suite, earlier_names

    names = context.suite_names()
    for key, value in (("benefit", section.benefit), ("against", section.against)):
        context.each_of(f"frontier.{key}", [value] if value else [], names, what=f"suite in frontier.{key}")
    capability = context.suite_names("capability")
    context.each_of("frontier.suites", section.suites or (), capability, what="capability suite in frontier.suites")
    benefit_suite(context.config, section)
    shares = [f"{share:g}" for share in section.shares]
    drawn = [f"{share:g}" for share in section.draw_shares or ()]
    context.each_of("frontier.draw_shares", drawn, shares, what="share in frontier.draw_shares")
    if "checkpoint" in section.orders and not earlier_names(context.config):
        rows = [("pair", "one aligned checkpoint"), ("wanted", "a list of checkpoints of one training")]
        context.refuse("frontier.orders", "order checkpoint needs earlier checkpoints.", rows, "leave it out")
    _check_plans(context, section)


def _check_plans(context: CheckContext, section: FrontierSection) -> None:
    from taxlens.analysis.frontier.order_plans import keep_suffix
    from taxlens.analysis.frontier.orders import ORDERS
    from taxlens.analysis.frontier.plans import plan_name

    ranked = [order for order in section.orders if ORDERS[order].by_share]
    known = [plan_name(order, share) for order in ranked for share in section.shares]
    known += [name + keep_suffix(keep) for name in known for keep in section.keeps]
    others = tuple(f"{order}-" for order in section.orders if order not in ranked)
    named = [name for name in section.generate_plans or () if not name.startswith(others)]
    context.each_of("frontier.generate_plans", named, known, what="plan in frontier.generate_plans")
