"""The row of the tax table that a suite is told by, and the order in which suites are told."""

from __future__ import annotations

import pandas as pd

from taxlens.analysis.scoring import metrics
from taxlens.words.run_view import RunView


def main_metric(run: RunView) -> str:
    """Return the metric that a run is told in (see `scoring.metrics.main_metric`); blank without a tax table."""
    return metrics.main_metric(run.table("tax")["metric"]) if run.has("tax") else ""


def by_loss(run: RunView) -> list[str]:
    """Return the capability suites, the largest tax first (each in the template in which it is localised)."""
    if not run.has("tax"):
        return []
    frame = run.table("tax")
    rows = frame[(frame["metric"] == main_metric(run)) & (frame["kind"] == "capability")]
    found = {str(suite): told_row(run, str(suite))["tax"] for suite in dict.fromkeys(rows["suite"])}
    return sorted(found, key=lambda suite: -float(found[suite]))


def told_row(run: RunView, suite: str) -> pd.Series:
    """Return a capability suite's row in the main metric and in the template in which it is localised."""
    frame = run.table("tax")
    rows = frame[(frame["metric"] == main_metric(run)) & (frame["kind"] == "capability") & (frame["suite"] == suite)]
    return rows[rows["template"] == _localised(run, suite, rows)].iloc[0]


def _localised(run: RunView, suite: str, rows: pd.DataFrame) -> str:
    if run.has("closure"):
        closure = run.table("closure")
        found = closure.loc[closure["suite"] == suite, "template"]
        if len(found) and str(found.iloc[0]) in set(rows["template"]):
            return str(found.iloc[0])
    return str(rows["template"].iloc[0])


def is_told(row: pd.Series) -> bool:
    """Whether a row's interval leaves out none."""
    return bool(row["low"] > 0 or row["high"] < 0)


def capital(sentence: str) -> str:
    """Return a sentence with its first letter as a capital."""
    return sentence[:1].upper() + sentence[1:]
