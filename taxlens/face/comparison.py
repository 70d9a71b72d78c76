"""Runs side by side: the same table of several runs, told apart by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.runs.folder import Run


def open_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: if it is none.
    """
    return Run.open(folder)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Result):
    """The taxes of several runs side by side.

    Attributes:
        runs: the runs, in the order given.
    """

    figure: ClassVar[str] = "comparison"

    runs: tuple[Run, ...]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of every run, stacked, with the column `run` in front [rows, columns]."""
        names = _names(self.runs)
        parts = [self._told_apart(run, run.table(name)).assign(run=label) for run, label in zip(self.runs, names)]
        stacked = pd.concat(parts, ignore_index=True)
        return stacked[["run", *[c for c in stacked.columns if c != "run"]]]

    def _told_apart(self, run: Run, frame: pd.DataFrame) -> pd.DataFrame:
        """The table with suites of one name and other items under names of their own: their taxes do not compare."""
        if "suite" not in frame:
            return frame
        renamed = {name: f"{name} #{str(_items_of(run, name))[:4]}" for name in self.different}
        return frame.assign(suite=frame["suite"].replace(renamed))

    @property
    def different(self) -> tuple[str, ...]:
        """Names of suites that do not hold the same items in every run that has them."""
        names = dict.fromkeys(name for run in self.runs for name in run.manifest.get("suites", {}))
        held = {name: {_items_of(run, name) for run in self.runs} - {None} for name in names}
        return tuple(name for name, shas in held.items() if len(shas) > 1)

    def to_frame(self) -> pd.DataFrame:
        """Return the tax tables, stacked."""
        return self.table("tax")

    def __repr__(self) -> str:
        apart = f"; not the same items in all: {', '.join(self.different)}" if self.different else ""
        return f"Comparison({', '.join(_names(self.runs))}{apart})"


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    """Return several runs side by side.

    Args:
        runs: run objects or run folders, at least two.

    Raises:
        UsageError: if fewer than two are given.
    """
    opened = tuple(run if isinstance(run, Run) else Run.open(run) for run in runs)
    if len(opened) < 2:
        raise UsageError(explain("a comparison needs two runs or more.", [("got", len(opened))]))
    return Comparison(opened)


def _items_of(run: Run, suite: str) -> str | None:
    """The hash of a suite's items in a run."""
    return (run.manifest.get("suites", {}).get(suite) or {}).get("sha256")


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.config.name for run in runs]
    return names if len(set(names)) == len(names) else [run.folder.name for run in runs]
