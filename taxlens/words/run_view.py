"""What figures and reports need of a run: its folder, its manifest, and its tables by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

if TYPE_CHECKING:
    from taxlens.config.schema import Config


class RunView(Protocol):
    """A run, as those see it who only read it."""

    folder: Path
    manifest: dict[str, Any]
    config: Config

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables in the folder."""
        ...

    def has(self, table: str) -> bool:
        """Whether the table is there."""
        ...

    def table(self, name: str) -> pd.DataFrame:
        """Return a table [rows, columns]."""
        ...
