"""Small real tables for the figure tests, thinned from finished runs: `python -m benchmarks.house.figure_tables RUN... --out DIR`.

A table that several runs hold is taken from the first that has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from taxlens.core.artifacts import write_table
from taxlens.runs.folder import Run

SUITES = 2
ITEMS = 2


def _few_suites(frame: pd.DataFrame) -> pd.DataFrame:
    """The suites with the largest and the smallest absolute tax."""
    path = frame[(frame["metric"] == "probability") & (frame["method"] == "path")]
    sizes = path.groupby("suite")["effect"].sum().abs().sort_values()
    return frame[frame["suite"].isin([*sizes.index[:1], *sizes.index[-1:]]) & (frame["metric"] == "probability")]


def _thin(frame: pd.DataFrame) -> pd.DataFrame:
    frame = _few_suites(frame)
    rank = frame["effect"].abs().groupby([frame["suite"], frame["method"], frame["level"]]).rank(ascending=False)
    return frame[(frame["level"] != "singular") | (rank <= 40)]


def _tokens(frame: pd.DataFrame) -> pd.DataFrame:
    frame = _few_suites(frame)
    kept = [
        item for _, part in frame.groupby("suite", sort=False) for item in list(dict.fromkeys(part["item"]))[:ITEMS]
    ]
    return frame[frame["item"].isin(kept)]


def _layers(frame: pd.DataFrame) -> pd.DataFrame:
    every = sorted(frame["layer"].unique())
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 5).astype(int))]
    return frame[frame["layer"].isin(chosen) & (frame["template"] == frame["template"].iloc[0])]


def _two_labels(frame: pd.DataFrame) -> pd.DataFrame:
    keys = frame[["suite", "label"]].drop_duplicates().head(SUITES)
    kept = frame.merge(keys, on=["suite", "label"])
    return kept[kept["metric"].isin(["auc"])] if "metric" in kept else kept


def _all(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


THINNED: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "tax": _all, "tax_2x2": _all, "closure": _all, "path": _all, "similarity": _all, "frontier": _all, "states": _all,
    "evidence": _all, "restoration": _all, "attribution": _thin, "attribution_tokens": _tokens, "spectra": _layers,
    "probes": _two_labels, "probe_drop": _two_labels,
}  # fmt: skip


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    runs = [Run.open(folder) for folder in chosen.runs]
    for name, thin in THINNED.items():
        run = next((run for run in runs if run.has(name)), None)
        if run is None:
            print(f"{name}: in none of the runs")
            continue
        path = write_table(thin(run.table(name)), chosen.out / f"{name}.csv")
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB from {run.folder}")


if __name__ == "__main__":
    main()
