"""Rows of the files in which items and benchmarks come, whatever the format: JSON lines or arrays, CSV, parquet, datasets.

``.gz`` is taken off first. A table's cells are texts; all other formats keep the types that they hold.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taxlens.activations.items.item_tables import SEPARATORS, table_rows
from taxlens.core.errors import ItemError, TaxlensError, explain
from taxlens.core.json_text import JsonError, parse_json

Row = tuple[str, Mapping[str, Any]]
"""(where it stands, for errors; field -> value)"""

MOST_LINE = 1 << 24
"""Most characters of one JSON line."""
MOST_BYTES = 2**31
"""Most bytes that a compressed file may unpack to."""
_WRAPPERS = ("data", "items", "rows", "examples", "questions", "instances", "samples")
_FOLDERS = ("dataset_info.json", "state.json", "dataset_dict.json")
_OTHERS = {
    ".xlsx": "a spreadsheet",
    ".xls": "a spreadsheet",
    ".ods": "a spreadsheet",
    ".zip": "an archive",
    ".pkl": "a pickle",
}


def file_rows(path: Path | str) -> Iterator[Row]:
    """Every row of a file or of a folder that ``datasets`` saved.

    Args:
        path: ``.jsonl`` or ``.json`` (lines, an array, or an object around one), ``.csv``, ``.tsv``, ``.parquet``, each of
            them also as ``.gz``, or a folder of `datasets.Dataset.save_to_disk`.

    Raises:
        ItemError: there is no such file, or it cannot be read as what its name says.
        TaxlensError: the format needs a package that is not installed.
    """
    path = Path(path)
    suffix = _suffix(path)
    if path.is_dir():
        yield from _folder_rows(path)
    elif suffix == ".parquet":
        yield from _parquet_rows(path)
    elif suffix in _OTHERS:
        fix = "save the table as CSV (UTF-8) or JSON lines."
        raise ItemError(explain(f"suite file is {_OTHERS[suffix]}, not a table of text.", [("file", path)], fix))
    else:
        text = file_text(path)
        if suffix in SEPARATORS:
            yield from table_rows(text, path)
        else:
            yield from _json_rows(text, path)


def is_table(path: Path | str) -> bool:
    """Whether a file holds cells of text (CSV, TSV), in which an empty cell is an absent value."""
    return _suffix(Path(path)) in SEPARATORS


def records(given: Any) -> list[Mapping[str, Any]]:
    """Rows at hand as mappings: a list of them, a pandas DataFrame, or a ``datasets`` object.

    Raises:
        ItemError: it is none of these.
    """
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        return [{str(name): _plain(value) for name, value in row.items()} for row in given.to_dict("records")]
    if isinstance(given, Mapping):
        title = "a dataset of several splits is no list of rows."
        raise ItemError(explain(title, [("splits", ", ".join(map(str, given)))], "give one of them."))
    rows = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            found = [("row", number), ("got", type(row).__name__)]
            raise ItemError(explain("a row is no mapping of fields.", found, '[{"question": ..., "answer": ...}]'))
    return rows


def file_text(path: Path) -> str:
    """The text of a file, unpacked where it is compressed.

    Raises:
        ItemError: there is no such file, it cannot be read, it is not UTF-8, or unpacks to more than `MOST_BYTES`.
    """
    if not path.is_file():
        raise ItemError(explain("suite file not found.", [("file", path)], "check the path of the suite."))
    try:
        data = path.read_bytes()
    except OSError as error:
        rows = [("file", path), ("system", error.strerror)]
        raise ItemError(explain("suite file cannot be read.", rows, "check its permissions.")) from error
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(path)
    for start, what in (
        (b"PAR1", "parquet"),
        (b"PK", "a spreadsheet or an archive"),
        (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    ):
        if data.startswith(start):
            fix = "name it .parquet, or save it as JSON lines or CSV."
            raise ItemError(explain(f"suite file is {what}, not text.", [("file", path)], fix))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rows = [("file", path), ("byte", error.start)]
        raise ItemError(explain("suite file is not UTF-8.", rows, "save it as UTF-8.")) from error


def json_object(line: str, *, where: str) -> dict[str, Any]:
    """The JSON object that a line holds.

    Raises:
        ItemError: it holds none.
    """
    try:
        raw = parse_json(line, size=MOST_LINE, finite=False, unicode=False)
    except JsonError as error:
        rows = [("line", where), ("column", error.column or "-"), ("reason", error.reason)]
        raise ItemError(explain("not a JSON line.", rows, "write one JSON object a line.")) from error
    if not isinstance(raw, dict):
        rows = [("line", where), ("got", type(raw).__name__)]
        raise ItemError(explain("an item is not a JSON object.", rows, '{"id": ..., "group": ..., ...}'))
    return raw


def _suffix(path: Path) -> str:
    name = Path(path.name.removesuffix(".gz")) if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def _unpacked(path: Path) -> bytes:
    parts, size = [], 0
    try:
        with gzip.open(path) as file:
            while part := file.read(2**20):
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    rows = [("file", path), ("packed", path.stat().st_size), ("most bytes unpacked", MOST_BYTES)]
                    raise ItemError(
                        explain("a compressed suite file unpacks to too much.", rows, "do not trust this file.")
                    )
    except (OSError, EOFError, zlib.error) as error:
        rows = [("file", path), ("reason", error)]
        raise ItemError(explain("a compressed suite file is damaged.", rows, "was it cut short?")) from error
    return b"".join(parts)


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and _is_one_object(text)):
        whole = _whole(text, path)
        if whole is not None:
            yield from _wrapped(whole, path)
            return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", json_object(line, where=f"{path}:{number}")


def _is_one_object(text: str) -> bool:
    """Whether a text that begins with { is no object a line: its first line is no whole object."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        value = parse_json(first, finite=False, unicode=False)
    except JsonError:
        return "\n" in text.strip()
    wraps = isinstance(value, dict) and (
        any(isinstance(value.get(name), list) for name in _WRAPPERS) or _columns(value)
    )
    return bool(wraps) and "\n" not in text.strip()


def _columns(whole: Mapping[str, Any]) -> bool:
    """Whether an object holds one list a field, all of one length."""
    return (
        bool(whole) and all(isinstance(v, list) for v in whole.values()) and len({len(v) for v in whole.values()}) == 1
    )


def _whole(text: str, path: Path) -> Any:
    try:
        return parse_json(text, finite=False, unicode=False)
    except JsonError as error:
        if text.lstrip()[:1] == "{":
            return None  # objects a line, one of which is damaged: the line is named
        rows = [
            ("file", path),
            ("reason", error.reason),
        ]
        raise ItemError(explain("the suite's JSON array cannot be read.", rows, "was the file cut short?")) from error


def _wrapped(whole: Any, path: Path) -> Iterator[Row]:
    inside = whole
    if isinstance(whole, dict):
        inside = next((whole[name] for name in _WRAPPERS if isinstance(whole.get(name), list)), None)
        if inside is None and _columns(whole):
            inside = [dict(zip(whole, values)) for values in zip(*whole.values())]
        if inside is None:
            yield f"{path}:1", whole
            return
    for number, row in enumerate(inside, start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            rows = [("at", where), ("got", type(row).__name__)]
            raise ItemError(explain("an item is not a JSON object.", rows, '[{"id": ..., "group": ..., ...}]'))
        yield where, row


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        rows = [("file", path)]
        raise TaxlensError(explain("parquet files need pyarrow.", rows, "pip install 'taxlens[data]'")) from error
    if not path.is_file():
        raise ItemError(explain("suite file not found.", [("file", path)], "check the path of the suite."))
    try:
        number = 0
        for batch in ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (ArrowException, OSError) as error:
        rows = [("file", path), ("reason", str(error).split("\n")[0])]
        raise ItemError(explain("the parquet file cannot be read.", rows, "was it cut short?")) from error


def _folder_rows(path: Path) -> Iterator[Row]:
    if not any((path / name).is_file() for name in _FOLDERS):
        rows = [("folder", path), ("holds", ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing")]
        raise ItemError(
            explain("a suite's folder is no saved dataset.", rows, "a folder of Dataset.save_to_disk, or a file in it.")
        )
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if p.is_dir())
        rows = [("folder", path), ("splits", ", ".join(splits))]
        raise ItemError(
            explain("a saved dataset has several splits.", rows, f"{path.name}/{splits[0] if splits else 'test'}")
        )
    try:
        from datasets import load_from_disk
    except ImportError as error:
        rows = [("folder", path)]
        raise TaxlensError(
            explain("saved datasets need the package datasets.", rows, "pip install 'taxlens[data]'")
        ) from error
    try:
        for number, row in enumerate(load_from_disk(str(path)), start=1):
            yield f"{path}, row {number}", dict(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        rows = [("folder", path), ("reason", str(error).split("\n")[0])]
        raise ItemError(explain("the saved dataset cannot be read.", rows, "save it again.")) from error


def _plain(value: Any) -> Any:
    """A DataFrame's value as JSON would hold it: arrays as lists, NaN as absent."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and value != value else value
