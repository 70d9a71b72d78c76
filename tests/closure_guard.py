"""Whether a run's attribution closes on the tax that it measured: asked of every run that the tests make."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from taxlens.analysis.scoring.metrics import METRICS
from taxlens.analysis.tax.tax_tables import ITEM_COLUMNS

KEYS = ["suite", "template", "metric"]


def open_ends(folder: Path) -> list[str]:
    """Return the rows of closure.csv whose tax is not the measured one, or whose parts do not sum to it.

    Where only some items were attributed, their tax is taken from items.csv.
    """
    tables = {name: folder / "tables" / f"{name}.csv" for name in ("tax", "closure", "items", "attribution_items")}
    if not (tables["tax"].is_file() and tables["closure"].is_file()):
        return []
    closure = pd.read_csv(tables["closure"])
    if not len(closure):
        return []
    closure = closure.assign(**{"prompt_and_config": closure.get("prompt_and_config", pd.Series(dtype=float))})
    parts = closure[["attributed", "prompt_and_config", "residual"]].fillna(0).sum(axis=1)
    wrong = [
        f"{row.suite}/{row.template}/{row.metric} by {row.method}: parts sum to {total:.6g} of {row.tax:.6g}"
        for row, total in zip(closure.itertuples(), parts)
        if abs(total - row.tax) > 1e-6 + 1e-5 * abs(row.tax)
    ]
    measured = _measured(folder, tables)
    for row in closure.itertuples():
        there = measured.get((row.suite, row.template, row.metric))
        if there is not None and abs(there - row.tax) > 1e-4 + 1e-3 * abs(there):
            wrong.append(
                f"{row.suite}/{row.template}/{row.metric} by {row.method}: tax {row.tax:.6g}, tax.csv {there:.6g}"
            )
    return wrong


def _measured(folder: Path, tables: dict[str, Path]) -> dict[tuple[str, str, str], float]:
    """The measured tax of the items that were attributed."""
    config = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]["resolved"]
    if (config.get("attribution") or {}).get("items", "all") == "all":
        frame = pd.read_csv(tables["tax"])
        return dict(zip(frame[KEYS].itertuples(index=False, name=None), frame["tax"]))
    if not (tables["items"].is_file() and tables["attribution_items"].is_file()):
        return {}
    chosen = pd.read_csv(tables["attribution_items"], dtype={"item": str})[["suite", "item"]].drop_duplicates()
    items = pd.read_csv(tables["items"], dtype={"item": str}).merge(chosen, on=["suite", "item"])
    found = {}
    for metric in METRICS.values():
        column = ITEM_COLUMNS.get(metric.name, metric.name)
        if column in items:
            means = items.groupby(["suite", "template", "model"])[column].mean().unstack("model")
            for (suite, template), row in means.iterrows():
                found[suite, template, metric.name] = metric.sign * (row["base"] - row["aligned"])
    return found
