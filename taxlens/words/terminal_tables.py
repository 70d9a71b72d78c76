"""Tables of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.table import Table

from taxlens.words.amounts import signed


def new_table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table: columns of words set flush left, then columns of numbers flush right."""
    table = Table(title=title, title_justify="left", box=None)
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def span(low: float, high: float, metric: str) -> str:
    """Return an interval in the metric's unit, escaped for rich."""
    return f"[{signed(low, metric)}, {signed(high, metric)}]".replace("[", r"\[")


def plain_table(title: str, frame: pd.DataFrame) -> Table:
    """Return a frame [rows, columns] as it stands, numbers to three digits and blanks as "-"."""
    table = new_table(title, [str(name) for name in frame.columns], ())
    for row in frame.itertuples(index=False):
        table.add_row(*("-" if pd.isna(v) else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    return table
