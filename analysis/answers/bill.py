"""The alignment tax bill: the four taxes of a run in one table, each with its interval, positive where something was lost."""

from __future__ import annotations

import pandas as pd

from taxlens.analysis.answers.answer_tables import BILL

TAXES = ("benchmark", "over_refusal", "versatility", "inference")
"""The four taxes: points on benchmarks, refusals of harmless requests, variety of answers, tokens and time to answer."""

_ANSWERS = {
    "refusal_rate": ("over_refusal", "points", 1.0),
    "entropy": ("versatility", "nats", -1.0),
    "distinct_2": ("versatility", "share", -1.0),
    "tokens": ("inference", "tokens", 1.0),
    "seconds_per_item": ("inference", "seconds", 1.0),
}
"""Measure of the answers -> (its tax, unit, sign that makes a cost of aligned minus base)."""


def alignment_bill(tax: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """The bill of a run.

    Benchmark points are accuracy, and exact match where answers were generated, of capability suites. The other taxes are
    read from generated answers to capability suites: a benefit suite is meant to be refused. A measure that was not taken
    has no row.

    Args:
        tax: rows of tax.csv.
        costs: rows of costs.csv; may be empty.

    Returns:
        Rows of bill.csv, by tax.
    """
    rows = []
    for row in tax[(tax["kind"] == "capability") & tax["metric"].isin(["accuracy", "exact_match"])].to_dict("records"):
        rows.append({
            "tax": "benchmark", "measure": row["metric"], "unit": "points", "cost": row["tax"], "low": row["low"], "high": row["high"],
            **{name: row[name] for name in ("suite", "template", "base", "aligned", "n_items", "n_groups")},
        })  # fmt: skip
    for row in costs.to_dict("records") if len(costs) else ():
        if row["kind"] != "capability" or row["measure"] not in _ANSWERS:
            continue
        name, unit, sign = _ANSWERS[row["measure"]]
        ends = sorted((sign * row["low"], sign * row["high"]))
        rows.append({
            "tax": name, "measure": row["measure"], "unit": unit, "cost": sign * row["change"], "low": ends[0], "high": ends[1],
            **{column: row[column] for column in ("suite", "template", "base", "aligned", "n_items", "n_groups")},
        })  # fmt: skip
    order = {name: place for place, name in enumerate(TAXES)}
    return BILL.frame(sorted(rows, key=lambda row: order[row["tax"]]))
