"""The tables of the frontier: every plan, against others of its size, at matched benefit, leaks and stability."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Column, Table, count, flag, number, text

_PLAN = text("name of the plan")
_ORDER = text("how the plan's units were chosen")


def _with_ends(name: str, meaning: str, *, blank: str = "") -> dict[str, Column]:
    low, high = (number(f"{end} end of {name}'s 95 % interval", blank=blank) for end in ("lower", "upper"))
    return {name: number(meaning, blank=blank), f"{name}_low": low, f"{name}_high": high}


_RETURNED = _with_ends("returned", "share of the tax that the plan returns on held-out items", blank="the tax is 0")
_KEPT = _with_ends("benefit_kept", "share of the benefit that the plan keeps")

FRONTIER = Table(
    "frontier",
    "a plan, suite and metric",
    {
        "plan": _PLAN,
        "unit": text("level of the units: component, head or singular"),
        "order": _ORDER,
        "draw": count("number of the random draw; -1: not drawn"),
        "n_units": count("units that are undone, in whole or in part"),
        "share_undone": number("share of the units that is undone"),
        "energy_undone": number("share of the update's squared norm that is undone"),
        "suite": text(of.SUITE.meaning, blank="all taxed suites at once"),
        "metric": of.METRIC,
        "tax_predicted": number("tax that is left by the attribution of the training half", blank="not predicted"),
        **_with_ends("tax", "tax that is left, measured on held-out items, in the metric's unit"),
        **_RETURNED,
        **_with_ends("benefit", "benefit under the plan, nats"),
        **_with_ends(
            "benefit_generated",
            "refusals by generation, harmful minus harmless prompts, -1..1; the rule's error is in its interval",
            blank="not generated",
        ),
        "held_out": text("what no choice saw: items, answers (items with other answers) or suite (the whole suite)"),
        **_KEPT,
        **_with_ends("harm_kept", "share of the refusals of harmful prompts alone that the plan keeps, nats"),
        **_with_ends(
            "harmless", "compliance log-odds on harmless prompts, nats above aligned's", blank="no harmless prompts"
        ),
        **_with_ends(
            "benefit_predicted", "share of the benefit that training items say is kept", blank="not predicted"
        ),
    },
    key=("plan", "suite", "metric"),
)

FRONTIER_COMPARISON = Table(
    "frontier_comparison",
    "a path plan against another plan of the same share",
    {
        "plan": _PLAN,
        "other": text("name of the other plan"),
        "order": text("how the other plan's units were chosen"),
        "ahead": number("share of the tax that the path's plan returns beyond the other's"),
        "low": of.LOW,
        "high": of.HIGH,
        "benefit_kept": number("share of the benefit that the path's plan keeps"),
        "other_benefit_kept": number("share that the other keeps"),
    },
    key=("plan", "other"),
)

FRONTIER_MATCHED = Table(
    "frontier_matched",
    "an order's best plan among those that keep the benefit",
    {
        "order": _ORDER,
        "plan": text("name of the plan", blank="none keeps the benefit"),
        "n_units": count("units that are undone", blank="no plan"),
        "share_undone": number("share of the units that is undone", blank="no plan"),
        "energy_undone": number("share of the update's squared norm that is undone", blank="no plan"),
        **_with_ends("returned", "share of the tax that the plan returns", blank="no plan"),
        **_with_ends("benefit_kept", "share of the benefit that it keeps", blank="no plan"),
        **_with_ends(
            "path_ahead", "how much more of the tax the path's plan returns", blank="no plan, or the path's own"
        ),
        **_with_ends("harm_kept", "share of the refusals of harmful prompts alone that it keeps", blank="no plan"),
    },
    key=("order",),
)

FRONTIER_LEAKS = Table(
    "frontier_leaks",
    "what the two halves of a suite share",
    {
        "suite": of.SUITE,
        "key": text("group, gold, ...: what is compared"),
        "kept_apart": flag("whether the split keeps it apart"),
        "shared": count("held-out items whose value is in the training half too"),
        "share": number("of the held-out items"),
        "n_train": count("items of the training half"),
        "n_held": count("items held out"),
        "n_dropped": count("items in neither half"),
    },
    key=("suite", "key"),
)

FRONTIER_STABILITY = Table(
    "frontier_stability",
    "a plan",
    {
        "plan": _PLAN,
        "jaccard": number("overlap of the chosen units when the training groups are drawn again, mean"),
        "low": number("least overlap"),
        "high": number("largest overlap"),
    },
    key=("plan",),
)
