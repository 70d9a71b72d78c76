"""Methods side by side: where attributions of one tax agree, and why they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from taxlens.analysis.interventions.effects import APART_KIND
from taxlens.analysis.readings.reading_tables import AGREEMENT
from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.rounding import is_rounding, share_of


def agreement(table: pd.DataFrame, taxes: pd.DataFrame, *, reference: str = "path") -> pd.DataFrame:
    """Compare every method with a reference, suite by suite and metric by metric.

    Methods disagree where components interact: `interaction_share` says how much. A method that closes but ranks
    otherwise shares interactions differently; a method that does not close counts something twice or not at all.

    Args:
        table: rows of attribution.csv of several methods.
        taxes: rows of closure.csv or tax.csv: suite, template, metric, tax.
        reference: the method compared with.

    Returns:
        Columns suite, template, metric, level, method, closure (sum of effects over the tax), pearson, spearman
        (with the reference, over the units both list), top3 (share of the reference's three largest that are the
        method's), l1 (sum of |difference| over |tax|), mass (positive part of the effects over |tax|),
        interaction_share (sum of |restore - graft| over |tax|; NaN unless both are there), units (that both list),
        coverage (share of the reference's |effects| that those units hold: a method that was run on the leading
        components alone cannot close further than that).

    Raises:
        UsageError: no row of the reference.
    """
    if not (table["method"] == reference).any():
        rows = [("methods", ", ".join(sorted(table["method"].unique())))]
        raise UsageError(explain(f"no effects by {reference!r} to compare with.", rows))
    table = table[table["kind"] != APART_KIND] if "kind" in table else table
    keys = ["suite", "template", "metric", "level"]
    tax = taxes.drop_duplicates(["suite", "template", "metric"]).set_index(["suite", "template", "metric"])["tax"]
    found = []
    for key, rows in table.groupby(keys, sort=False):
        methods = {name: part.set_index("component")["effect"] for name, part in rows.groupby("method", sort=False)}
        if reference not in methods:
            continue
        whole = float(tax.get(key[:3], np.nan))
        share = _interaction(methods, whole)
        for name, effects in methods.items():
            numbers = _compare(effects, methods[reference], whole)
            found.append(dict(zip(keys, key)) | {"method": name} | numbers | {"interaction_share": share})
    return AGREEMENT.frame(found)


def _compare(effects: pd.Series, reference: pd.Series, tax: float) -> dict[str, float]:
    both = effects.index.intersection(reference.index)
    mine, other = effects[both].to_numpy(), reference[both].to_numpy()
    varied = len(both) > 2 and mine.std() > 0 and other.std() > 0
    size = np.nan if is_rounding(tax) else abs(tax)
    leading = [set(s[both].abs().sort_values(ascending=False, kind="stable").index[:3]) for s in (effects, reference)]
    return {
        "closure": float(share_of(effects.sum(), tax)),
        "pearson": float(np.corrcoef(mine, other)[0, 1]) if varied else np.nan,
        "spearman": float(spearmanr(mine, other).statistic) if varied else np.nan,
        "top3": len(leading[0] & leading[1]) / max(1, len(leading[1])),
        "l1": float(np.abs(mine - other).sum() / size),
        "mass": float(effects.clip(lower=0).sum() / size),
        "units": len(both),
        "coverage": float(np.abs(other).sum() / reference.abs().sum()) if reference.any() else np.nan,
    }


def _interaction(methods: dict[str, pd.Series], tax: float) -> float:
    if not {"graft", "restore"} <= set(methods) or is_rounding(tax):
        return float("nan")
    both = methods["graft"].index.intersection(methods["restore"].index)
    return float((methods["restore"][both] - methods["graft"][both]).abs().sum() / abs(tax))
