"""Items in a CSV or TSV file: one row an item, the fields of a JSON line as columns.

Columns: ``id``, ``group``, ``prompt`` or ``text``, ``gold``, the choices as ``choice_0``, ``choice_1``, ... or as one
column ``choices`` that holds a JSON list; likewise ``context_0`` ... or ``contexts``; labels as ``label.NAME``, or as
one column ``labels`` that holds a JSON object. Cells keep their leading spaces. An empty cell is an absent value,
except an empty ``prompt`` beside choices, which is an empty prompt.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taxlens.core.errors import ItemError, explain
from taxlens.core.json_text import MOST_DIGITS, JsonError, parse_json

MOST_COLUMNS = 2000
"""Most columns of a table."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PLAIN = (
    "id",
    "group",
    "prompt",
    "text",
    "gold",
    "choices",
    "contexts",
    "labels",
    "messages",
    "answers",
    "rendered",
    "match",
    "instructions",
)
_NUMBERED = re.compile(r"(choice|context)_(\d{1,4})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def table_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", {column: cell}) of every row of a CSV (or TSV) text with a header; empty rows are passed over.

    Raises:
        ItemError: there is no header, two columns have one name, or a row has not as many cells as the header.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, path), strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                _check_header(columns, where)
                continue
            if len(cells) != len(columns):
                rows = [("at", where), ("cells", len(cells)), ("columns", f"{len(columns)}: {', '.join(columns)}")]
                fix = "put a text that holds a separator in double quotes."
                raise ItemError(explain("a row has not one cell a column.", rows, fix))
            yield where, dict(zip(columns, cells))
    except csv.Error as error:
        rows = [("at", f"{path}:{reader.line_num}"), ("reason", error)]
        raise ItemError(
            explain("the table cannot be read.", rows, 'double the quotes inside a quoted cell: "".')
        ) from error
    if not columns:
        raise ItemError(explain("the table has no header.", [("file", path)], "id,group,prompt,choice_0,choice_1,gold"))


def table_fields(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    """The fields of a row as a JSON line has them; a column that no item has is a label.

    Raises:
        ItemError: a cell that cannot be read as what its column holds.
    """
    return _fields(cells, where)


def _separator(text: str, path: Path) -> str:
    """What parts the cells: by the file's name, or by its header where a ``.csv`` is written with ; or tabs."""
    named = SEPARATORS[Path(path.name.removesuffix(".gz")).suffix.lower()]
    header = text.lstrip("\n\r").split("\n", 1)[0]
    counts = {mark: header.count(mark) for mark in (",", ";", "\t")}
    return max(counts, key=lambda mark: counts[mark]) if not counts[named] and any(counts.values()) else named


def _check_header(columns: list[str], where: str) -> None:
    if len(columns) > MOST_COLUMNS:
        rows = [("at", where), ("columns", len(columns)), ("at most", MOST_COLUMNS)]
        raise ItemError(explain("the table has too many columns.", rows, "keep the columns that are used."))
    doubled = sorted(name for name, count in Counter(columns).items() if count > 1)
    if doubled:
        rows = [("at", where), ("columns", ", ".join(doubled))]
        raise ItemError(explain("two columns have one name.", rows, "rename or drop one of them."))


def _fields(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for column, cell in cells.items():
        if column.startswith("label."):
            if cell.strip():
                labels[column.removeprefix("label.")] = _number(cell)
        elif not _NUMBERED.fullmatch(column):
            if column not in _PLAIN:
                if cell.strip():
                    found[column] = _number(cell)
            elif column in ("choices", "contexts", "labels", "messages", "answers", "instructions") and cell.strip():
                found[column] = _json(cell, column, where)
            elif column == "gold" and cell.strip():
                found[column] = (
                    int(cell)
                    if re.fullmatch(r"\s*\d{1,18}\s*", cell)
                    else _json(cell, column, where)
                    if cell.strip()[0] == "["
                    else cell
                )
            elif column == "rendered" and cell.strip():
                found[column] = cell.strip().lower() in ("1", "true", "yes")
            elif cell:
                found[column] = cell
    for kind in ("choice", "context"):
        numbered = _numbered(cells, kind, where)
        if numbered:
            found[f"{kind}s"] = numbered
    if labels:
        found["labels"] = {**found.get("labels", {}), **labels}
    if "prompt" in cells and not found.keys() & {"prompt", "text", "contexts"} and "choices" in found:
        found["prompt"] = ""
    return found


def _numbered(cells: Mapping[str, str], kind: str, where: str) -> list[str]:
    named = {int(m[2]): cells[m[0]] for m in map(_NUMBERED.fullmatch, cells) if m and m[1] == kind}
    present = {number: cell for number, cell in named.items() if cell}
    if sorted(present) != list(range(len(present))):
        rows = [("at", where), ("given", ", ".join(f"{kind}_{n}" for n in sorted(present)))]
        raise ItemError(explain(f"the {kind}s of a row leave a gap.", rows, f"number them from {kind}_0 on."))
    return [present[number] for number in sorted(present)]


def _json(cell: str, column: str, where: str) -> Any:
    try:
        return parse_json(cell, finite=False, unicode=False)
    except JsonError as error:
        example = '{"truth": 1}' if column == "labels" else '[" one", " two"]'
        rows = [("at", where), ("got", cell[:80]), ("reason", error.reason)]
        raise ItemError(explain(f"the cell of {column} is no JSON.", rows, example)) from error


def _number(cell: str) -> str | int | float:
    text = cell.strip()
    if not _NUMBER.fullmatch(text) or len(text) > MOST_DIGITS:
        return cell
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
