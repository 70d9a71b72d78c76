"""Where lm-evaluation-harness has put its logs: every layout and file name since 0.4.0, and those of its descendants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxlens.analysis.logs.records import inside
from taxlens.core.errors import ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

_DATE = r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?|\d{8}[_T-]?\d{6}"
_NAMES = (
    re.compile(rf"samples_(?P<task>.+?)_(?P<date>{_DATE})\.jsonl?"),
    re.compile(rf"(?P<date>{_DATE})_samples_(?P<task>.+?)\.jsonl?"),
    re.compile(r"samples_(?P<task>.+?)(?P<date>)\.jsonl?"),
)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file of samples: its task by its name, its date (blank where the name has none), and where it lies."""

    task: str
    date: str
    path: Path


def sample_files(path: Path) -> list[SampleFile]:
    """The samples files that a path is or holds; what their names do not say, their first sample does."""
    if path.is_file():
        return [_named(path)] if _by_name(path) or _is_samples(path) else []
    files = sorted(file for file in path.rglob("*.json*") if file.suffix in (".json", ".jsonl"))
    named = [_named(file) for file in files if _by_name(file)]
    if named:
        return named
    return [_named(file) for file in files if _is_samples(file)]


def results_of(file: SampleFile, folder: Path) -> tuple[dict[str, Any], Path | None]:
    """The results file beside a samples file, whatever it is called, and its path; ({}, None) where there is none.

    Raises:
        ItemError: the results file of the same date is no JSON.
        CheckError: a file that leaves the folder.
    """
    where = inside(folder, file.path).parent
    found = [f"results_{file.date}.json"] if file.date else []
    found += sorted((f.name for f in where.glob(f"*_{file.date}.json")), key=len) if file.date else []
    found += [f"{file.date}_results.json"] if file.date else ["results.json"]
    for name in dict.fromkeys(found):
        if (where / name).is_file() and not _by_name(where / name):
            values = _read(inside(folder, where / name), strict=name.startswith("results"))
            if "results" in values or name == f"results_{file.date}.json":
                return values, where / name
    others = [f for f in sorted(where.glob("*.json")) if not _by_name(f)]
    dated = [(f, values) for f in others if "results" in (values := _read(inside(folder, f), strict=False))]
    dated = [(f, v) for f, v in dated if file.task in v["results"] and not re.search(_DATE, f.name)] or [
        (f, v) for f, v in dated if file.task in v["results"] and not file.date
    ]
    return (dated[-1][1], dated[-1][0]) if dated else ({}, None)


def groups_of(results: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """The groups that a task belongs to by the results file, outermost first."""
    parts = results.get("group_subtasks")
    if not isinstance(parts, Mapping):
        return ()
    parents = {child: group for group, children in parts.items() if isinstance(children, list) for child in children}
    chain: list[str] = []
    while task in parents and parents[task] not in chain:
        task = parents[task]
        chain.append(task)
    return tuple(reversed(chain))


def first_record(path: Path) -> dict[str, Any]:
    """The first object of a file of JSON lines or of one array; {} where there is none."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(1)
            file.seek(0)
            if start == "[":
                values = parse_json(file.read(), finite=False, unicode=False)
                return values[0] if values and isinstance(values[0], dict) else {}
            value = parse_json(file.readline(), finite=False, unicode=False)
    except (UnicodeDecodeError, JsonError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _by_name(path: Path) -> re.Match[str] | None:
    return next((found for pattern in _NAMES if (found := pattern.fullmatch(path.name))), None)


def _named(path: Path) -> SampleFile:
    found = _by_name(path)
    if found:
        return SampleFile(found["task"], found["date"], path)
    return SampleFile(_task_in_stem(path), "", path)


def _task_in_stem(path: Path) -> str:
    """The task in a name such as ``MODEL_TASK.jsonl``: a task of the results file beside it that ends the name."""
    tasks = _read(path.with_name("results.json"), strict=False).get("results", {})
    ending = [str(task) for task in tasks if path.stem.endswith(str(task))]
    return max(ending, key=len) if ending else path.stem


def _is_samples(path: Path) -> bool:
    first = first_record(path)
    return "doc_id" in first and any(name in first for name in ("arguments", "filtered_resps", "resps"))


def _read(path: Path, *, strict: bool) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"), finite=False, unicode=False)
    except (UnicodeDecodeError, JsonError, OSError) as error:
        if not strict:
            return {}
        rows = [("file", path), ("reason", error)]
        raise ItemError(explain("the results file of the log is no JSON.", rows)) from error
    return value if isinstance(value, dict) else {}


def walk(value: Any) -> Iterator[Any]:
    """Every leaf of nested lists."""
    if isinstance(value, list):
        for part in value:
            yield from walk(part)
    else:
        yield value
