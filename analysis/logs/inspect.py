"""Read Inspect logs (``.eval`` and ``.json``) through ``inspect_ai``'s own reader."""

from __future__ import annotations

import json
import string
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside
from taxlens.core.errors import CheckError, ItemError, TaxlensError, explain
from taxlens.core.json_text import JsonError, parse_json

VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def is_inspect(path: Path) -> bool:
    """Whether a path is an Inspect log file, or a folder that holds one."""
    return bool(_files(path))


def read_inspect(path: Path, *, scorer: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of an Inspect log.

    Epochs of a sample are averaged. A score of C, I, P or N becomes 1, 0, .5 or 0.

    Args:
        path: an ``.eval`` or ``.json`` log, or a folder with such logs (of one model).
        scorer: which scorer to read where a task has several; by default the first.

    Returns:
        {task: LoggedTask}.

    Raises:
        TaxlensError: ``inspect_ai`` is not installed.
        ItemError: the log cannot be read or holds no samples, or two logs are of one task.
        CheckError: the archive holds a path that leaves it.
    """
    tasks: dict[str, LoggedTask] = {}
    for file in _files(path):
        inside(path if path.is_dir() else path.parent, file)
        task = _task(_read(file), file, scorer)
        if task.name in tasks:
            rows = [("task", task.name), ("first", tasks[task.name].source), ("second", file)]
            raise ItemError(explain("two logs are of one task.", rows, "give the one log file."))
        tasks[task.name] = task
    return tasks


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.eval"), *(f for f in path.glob("*.json") if _is_json_log(f))])
    return [path] if path.suffix == ".eval" or (path.suffix == ".json" and _is_json_log(path)) else []


def _is_json_log(file: Path) -> bool:
    try:
        value = parse_json(file.read_text(encoding="utf-8"), finite=False)
    except (UnicodeDecodeError, JsonError):
        return False
    return isinstance(value, dict) and "eval" in value and "version" in value


def _read(file: Path) -> Any:
    if file.suffix == ".eval":
        _check_archive(file)
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        rows = [("log", file)]
        raise TaxlensError(explain("Inspect logs need inspect_ai.", rows, "pip install 'taxlens[inspect]'")) from error
    try:
        return read_eval_log(str(file))
    except (ValueError, OSError, LookupError, RecursionError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        rows = [("log", file), ("reason", error)]
        raise ItemError(explain("the Inspect log cannot be read.", rows, "was the log cut short?")) from error


def _check_archive(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ItemError(explain("the Inspect log is no archive.", [("log", file), ("reason", error)])) from error
    for name in names:
        entry = PurePosixPath(name.replace("\\", "/"))
        if entry.is_absolute() or ".." in entry.parts or ":" in entry.parts[0]:
            rows = [("log", file), ("entry", repr(name))]
            raise CheckError(explain("the log holds a path that leaves it.", rows, "do not trust this file."))


def _task(log: Any, file: Path, scorer: str | None) -> LoggedTask:
    if not log.samples:
        rows = [("log", file), ("status", log.status)]
        raise ItemError(explain("the Inspect log holds no samples.", rows, "log samples, and give the whole log."))
    epochs: dict[str, list[Any]] = {}
    for sample in log.samples:
        epochs.setdefault(str(sample.id), []).append(sample)
    _check_epochs(epochs, file)
    scorers = list(next(iter(epochs.values()))[0].scores or {})
    chosen = scorer or (scorers[0] if scorers else "")
    if chosen not in scorers:
        rows = [("log", file), ("scorers", ", ".join(scorers) or "none")]
        raise ItemError(explain(f"no scorer {chosen!r} in the log.", rows))
    samples = {key: _sample(key, group, chosen, file) for key, group in epochs.items()}
    spec = log.eval
    notes = [f"{spec.task}: read scorer {chosen!r} of {', '.join(scorers)}."] if len(scorers) > 1 else []
    return LoggedTask(
        name=str(spec.task),
        source=str(file),
        model=str(spec.model),
        template="chat",
        settings={
            "task version": str(spec.task_version),
            "task arguments": json.dumps(spec.task_args, sort_keys=True, default=str),
            "dataset": f"{spec.dataset.name} ({spec.dataset.samples} samples)",
            "solver": ", ".join(step.solver for step in (log.plan.steps if log.plan else [])),
            "epochs": str(max(map(len, epochs.values()))),
            "harness": str((spec.packages or {}).get("inspect_ai", "")),
        },
        samples=samples,
        notes=tuple(notes),
    )


def _check_epochs(epochs: dict[str, list[Any]], file: Path) -> None:
    for key, group in epochs.items():
        numbers = [sample.epoch for sample in group]
        if len(set(numbers)) != len(numbers):
            rows = [("log", file), ("sample", key), ("epochs", numbers)]
            raise ItemError(explain("a sample is logged twice.", rows, "evaluate again into a new log."))


def _sample(key: str, epochs: list[Any], scorer: str, file: Path) -> LoggedSample:
    first = epochs[0]
    values = []
    for sample in epochs:
        score = (sample.scores or {}).get(scorer)
        if score is None:
            rows = [("log", file), ("sample", key), ("error", sample.error.message if sample.error else "none")]
            raise ItemError(explain("a sample of the log has no score.", rows, "evaluate it again."))
        values.append(_number(score.value, key, file))
    prompt = first.input if isinstance(first.input, str) else "\n".join(m.text for m in first.input)
    choices = tuple(f" {choice}" for choice in (first.choices or ()))
    target = first.target if isinstance(first.target, str) else (first.target[0] if first.target else "")
    gold = string.ascii_uppercase.find(target.strip()) if len(target.strip()) == 1 else -1
    usable = len(choices) > 1 and 0 <= gold < len(choices)
    return LoggedSample(
        key=key,
        doc_hash=json.dumps([prompt, list(choices), target]),
        prompt=prompt,
        choices=choices if usable else (),
        gold=gold if usable else None,
        logp=None,
        values={"accuracy": sum(values) / len(values)},
        prompt_hash="",
        document=dict(first.metadata or {}),
    )


def _number(value: Any, key: str, file: Path) -> float:
    if isinstance(value, str) and value in VALUES:
        return VALUES[value]
    if isinstance(value, bool | int | float):
        return float(value)
    rows = [("log", file), ("sample", key), ("value", repr(value))]
    raise ItemError(explain("a score is no number and none of C, I, P, N.", rows, "choose another scorer."))
