"""A table declared once: its columns with types, units and meaning; checked where it is written, typed where it is read.

The columns that many tables share stand at the end.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.core.errors import CheckError, explain

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_WORDS = {str: "text", float: "number", int: "whole number", bool: "yes or no"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the type of its cells, what they mean and in which unit.

    Args:
        type: str, float, int or bool.
        meaning: what a cell says, with its unit and sign.
        blank: what an empty cell says; without it no cell may be empty (a number may always be undefined).
        optional: whether a table may lack the column.
    """

    type: type
    meaning: str
    blank: str = ""
    optional: bool = False

    @property
    def words(self) -> str:
        """The meaning as the contract prints it: blanks and options said."""
        said = [self.meaning, *([f"blank: {self.blank}"] if self.blank else []), *(["optional"] * self.optional)]
        return "; ".join(said)

    @property
    def dtype(self) -> str:
        """The pandas dtype of the column: nullable where a cell may be empty."""
        if self.type in (int, bool):
            plain, nullable = ("int64", "Int64") if self.type is int else ("bool", "boolean")
            return nullable if self.blank else plain
        return "float64" if self.type is float else "str"


def text(meaning: str, *, blank: str = "", optional: bool = False) -> Column:
    """Return a column of texts."""
    return Column(str, meaning, blank, optional)


def number(meaning: str, *, blank: str = "", optional: bool = False) -> Column:
    """Return a column of numbers; a number that is undefined is blank."""
    return Column(float, meaning, blank, optional)


def count(meaning: str, *, blank: str = "", optional: bool = False) -> Column:
    """Return a column of whole numbers."""
    return Column(int, meaning, blank, optional)


def flag(meaning: str, *, blank: str = "", optional: bool = False) -> Column:
    """Return a column of True and False."""
    return Column(bool, meaning, blank, optional)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run: its name, what one row says, its columns in order, and the columns that tell rows apart.

    Args:
        name: file name without ending.
        row: what one row is, in a few words.
        columns: by name, in the order in which they are written.
        key: no two rows are alike in these.
        further: gives columns that a registry adds, all optional, after these.

    Example:
        >>> lost = Table("lost", "a suite", {"suite": text("suite"), "tax": number("loss, 0..1")}, key=("suite",))
        >>> list(lost.frame([("facts", 0.5)]).columns)
        ['suite', 'tax']
        >>> len(lost.frame([]))
        0
    """

    name: str
    row: str
    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()
    further: Callable[[], Mapping[str, Column]] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.key if name not in self.columns]
        if unknown:
            raise ValueError(f"key of table {self.name!r} names no column: {', '.join(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Every column's name, in order."""
        return tuple(self.declared)

    @property
    def declared(self) -> Mapping[str, Column]:
        """Every column as it is declared now: its own, and those that a registry adds."""
        return self.columns if self.further is None else dict(self.columns) | dict(self.further())

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that are always there."""
        return tuple(name for name, column in self.declared.items() if not column.optional)

    def extended(self, name: str, *, row: str = "", key: Iterable[str] = (), **more: Column) -> Table:
        """Return this table under another name with further columns, and more columns in its key."""
        columns = dict(self.columns) | more
        return replace(self, name=name, row=row or self.row, columns=columns, key=(*self.key, *key))

    def frame(self, rows: Iterable[Any]) -> pd.DataFrame:
        """Return rows (tuples in the order of the columns, or mappings) as a frame; the header is there without rows."""
        import pandas as pd

        rows = list(rows)
        if rows and isinstance(rows[0], Mapping):
            return pd.DataFrame(rows, columns=[n for n in self.names if n in self.required or n in rows[0]])
        return pd.DataFrame(
            rows, columns=list(self.names if rows and len(rows[0]) == len(self.names) else self.required)
        )

    def join(self, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
        """Return frames one under the other, those without rows left out; an empty table where none has a row."""
        import pandas as pd

        kept = [frame for frame in frames if len(frame)]
        return pd.concat(kept, ignore_index=True) if kept else self.frame([])

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with this table's columns in order and their types.

        Raises:
            CheckError: a column is missing or unknown, a cell is of another type or empty where none may be, or two
                rows have the same key.
        """
        if not len(frame) and not len(frame.columns):
            frame = self.frame([])
        self._has_columns(frame)
        unknown = [str(name) for name in frame.columns if name not in self.declared]
        if unknown:
            self._refuse("has columns that are not declared.", [("columns", ", ".join(unknown))])
        kept = [name for name in self.names if name in frame]
        typed = frame[kept].copy()
        for name in kept:
            typed[name] = self._typed(name, frame[name])
        keys = [name for name in self.key if name in typed]
        twice = typed.duplicated(keys, keep=False) if keys else []
        if keys and twice.any():
            first = typed.loc[twice, keys].iloc[0]
            rows = [("rows", int(twice.sum())), ("first", ", ".join(f"{k} {first[k]}" for k in keys))]
            self._refuse("says the same fact twice.", rows)
        return typed.reset_index(drop=True)

    def read(self, path: Path | str) -> pd.DataFrame:
        """Return the table in a file, with its types; columns that are not declared are read as pandas reads them.

        Raises:
            CheckError: the file has no header or lacks a column, or a cell is of another type.
        """
        import pandas as pd

        wanted = {name: column.dtype for name, column in self.declared.items()}
        options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
        try:
            header = list(pd.read_csv(path, nrows=0).columns)
            self._has_columns(pd.DataFrame(columns=header), where=path)
            return pd.read_csv(path, dtype={name: wanted[name] for name in header if name in wanted}, **options)
        except (ValueError, TypeError) as error:  # pandas' EmptyDataError and ParserError are ValueErrors
            self._refuse("cannot be read.", [("file", path), ("reason", str(error)[:200])])

    def _has_columns(self, frame: pd.DataFrame, *, where: object = None) -> None:
        missing = [name for name in self.required if name not in frame]
        if missing:
            rows = [*([("file", where)] if where else []), ("missing", ", ".join(missing))]
            self._refuse("lacks columns.", [*rows, ("has", ", ".join(map(str, frame.columns)) or "none")])

    def _typed(self, name: str, cells: pd.Series) -> pd.Series:
        import pandas as pd

        column, texts = self.declared[name], not pd.api.types.is_numeric_dtype(cells)
        empty = (cells.isna() | (cells == "") if texts else cells.isna()).to_numpy(dtype=bool)
        if empty.any() and column.type is not float and not column.blank:
            self._refuse("has empty cells.", [("column", name), ("rows", int(empty.sum()))])
        if column.type is str:
            if pd.api.types.infer_dtype(cells[~empty]) not in ("string", "empty"):
                self._unfit(name, next(value for value in cells[~empty] if not isinstance(value, str)))
            return cells.astype(object).where(~empty, None)
        found = self._numbers(name, cells, empty)
        if column.type is float:
            return found
        fits = found.isin([0.0, 1.0]) if column.type is bool else found == found.round()
        if not fits[~empty].all():
            self._unfit(name, cells[~empty & ~fits].iloc[0])
        if column.type is bool:
            found = found.astype("Float64").where(~empty)
        return found.astype(column.dtype)

    def _numbers(self, name: str, cells: pd.Series, empty: np.ndarray) -> pd.Series:
        import numpy as np
        import pandas as pd

        if pd.api.types.is_numeric_dtype(cells):
            return pd.Series(cells.to_numpy(dtype=float, na_value=np.nan), index=cells.index)
        for value in cells[~empty]:
            if not isinstance(value, (numbers.Real, np.bool_)):
                self._unfit(name, value)
        return pd.Series([np.nan if e else float(v) for v, e in zip(cells, empty)], index=cells.index, dtype=float)

    def _unfit(self, name: str, value: object) -> None:
        rows = [("column", name), ("got", repr(value)[:80]), ("expected", _WORDS[self.declared[name].type])]
        self._refuse("has a cell of another type.", rows)

    def _refuse(self, what: str, rows: list[tuple[str, object]]) -> Any:
        fix = "run the stage that writes it again"
        raise CheckError(explain(f"table {self.name!r} {what}", rows, fix))


SUITE = text("name of the suite")
EVERY_SUITE = text("name of the suite", blank="all suites together")
KIND = text("capability or benefit")
TEMPLATE = text("plain or chat: how the prompts were given to the models")
METRIC = text("accuracy, accuracy_norm, probability (0..1), margin, nll or kl (nats)")
METHOD = text("attribution method")
LEVEL = text("component, head, neuron or singular")
COMPONENT = text("unit of the network, as named below")
ITEM = text("id of the item")
GROUP = text("group of the item: what is resampled together")
MODEL = text("base or aligned")
SITE = text("where in a block the activations are read")
LAYER = count("block, from 0")
HEAD = count("attention head", blank="the whole row", optional=True)
LOW = number("lower end of the 95 % interval, by group bootstrap")
HIGH = number("upper end of the 95 % interval")
N_ITEMS = count("items measured")
N_GROUPS = count("groups resampled")
EFFECT = number("part of the tax, in the metric's unit; positive is loss")
TAX = number("base minus aligned, in the metric's unit (nll, kl: aligned minus base); positive is loss")
SHARE = number("effect over the tax", blank="the tax is 0")
