"""A run as one of its workers has it: it reads the run's tables and store, and writes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from taxlens.config.schema import Config
from taxlens.core.table import Table
from taxlens.runs.folder import Run


class WorkerRun(Run):
    """The run's tables and files for reading; what a stage writes goes nowhere, or into a folder of the worker's own.

    Args:
        source: the run's folder.
        own: the worker's folder.
        config: the run's config, as it is done now.
    """

    def __init__(self, source: Path, own: Path, config: Config) -> None:
        self.source = Run.open(source)
        own.mkdir(parents=True, exist_ok=True)
        super().__init__(own, self.source.manifest)
        self.config, self.writes = config, False

    @property
    def outputs(self) -> dict[str, str]:
        """What finished stages of the run wrote."""
        return self.source.outputs

    @property
    def store(self) -> Path:
        """Where the run's activations are."""
        return self.source.store

    def checked(self, name: str) -> Path:
        """The path of a file of the run that is as it was written."""
        return self.source.checked(name)

    def write(self, table: Table, frame: pd.DataFrame) -> Path:
        """Write nothing: the run itself writes its tables."""
        return self.folder / f"tables/{table.name}.csv"

    def note(self, **facts: Any) -> None:
        """Keep facts in memory."""
        self.manifest |= facts

    def save(self) -> None:
        """Write nothing."""
