"""Read lighteval details (``details_TASK_DATE.parquet``), in the layout before and after its version 0.10."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taxlens.activations.items.item_files import file_rows
from taxlens.analysis.logs.logged_metrics import METRICS, LoggedMetric
from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside, short_fields
from taxlens.core.errors import ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

_FILE = re.compile(r"details_(?P<task>.+?)_(?P<date>\d{4}-\d\d-\d\dT[\d\-.:]+)\.parquet")


def is_lighteval(path: Path) -> bool:
    """Whether a path is a file of lighteval details, or a folder that holds one."""
    return bool(_files(path))


def read_lighteval(path: Path) -> dict[str, LoggedTask]:
    """The tasks of a lighteval log; of several dates of one task the newest.

    Raises:
        ItemError: details that cannot be read.
        TaxlensError: pyarrow is not installed.
        CheckError: a file that leaves the folder.
    """
    folder = path if path.is_dir() else path.parent
    newest: dict[str, tuple[str, Path]] = {}
    for task, date, file in _files(path):
        if task not in newest or date > newest[task][0]:
            newest[task] = (date, file)
    return {task: _task(task, date, inside(folder, file), folder) for task, (date, file) in sorted(newest.items())}


def _files(path: Path) -> list[tuple[str, str, Path]]:
    files = [path] if path.is_file() else sorted(path.rglob("details_*.parquet"))
    found = [(_FILE.fullmatch(file.name), file) for file in files]
    return [(match["task"], match["date"], file) for match, file in found if match]


def _task(task: str, date: str, file: Path, folder: Path) -> LoggedTask:
    results = _results(file, date, folder)
    samples: dict[str, LoggedSample] = {}
    metrics: dict[str, LoggedMetric] = {}
    for number, (where, row) in enumerate(file_rows(file)):
        sample, found = _sample(str(number), row, where)
        samples[sample.key] = sample
        metrics |= {name: metric for name, metric in found.items() if name not in metrics}
    if not samples:
        raise ItemError(explain("the log holds no samples.", [("file", file)]))
    metrics = {name: metric for name, metric in metrics.items() if all(name in s.values for s in samples.values())}
    general = results.get("config_general", {})
    notes = [] if results else [f"{task}: no results file of {date}: settings and totals of this log are not known."]
    chat = bool(general.get("use_chat_template")) or any(sample.messages for sample in samples.values())
    return LoggedTask(
        name=task,
        source=str(file),
        model=str(general.get("model_name") or "unknown"),
        template="chat" if chat else "plain",
        settings={
            name: str(general[name])
            for name in ("lighteval_sha", "num_fewshot_seeds", "max_samples", "model_dtype")
            if name in general
        },
        samples=samples,
        metrics=metrics,
        totals=_totals(results, task),
        notes=tuple(notes),
    )


def _results(file: Path, date: str, folder: Path) -> dict[str, Any]:
    for found in sorted(folder.rglob(f"results_{date}.json")) or sorted(file.parent.glob("results*.json")):
        try:
            value = parse_json(inside(folder, found).read_text(encoding="utf-8"), finite=False, unicode=False)
        except (UnicodeDecodeError, JsonError) as error:
            raise ItemError(
                explain("the results file of the log is no JSON.", [("file", found), ("reason", error)])
            ) from error
        if isinstance(value, dict):
            return value
    return {}


def _totals(results: Mapping[str, Any], task: str) -> dict[str, float]:
    told = results.get("results", {})
    own = told.get(task) or next(
        (told[name] for name in told if name.replace(":", "|").startswith(task.replace(":", "|"))), {}
    )
    return {
        METRICS[name].name: float(value)
        for name, value in own.items()
        if name in METRICS and isinstance(value, int | float)
    }


def _sample(key: str, row: Mapping[str, Any], where: str) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    if isinstance(row.get("doc"), Mapping):
        return _newer(key, row, where)
    if "full_prompt" in row or "example" in row:
        return _older(key, row)
    rows = [("at", where), ("columns", ", ".join(map(str, row)))]
    raise ItemError(
        explain(
            "a row is none of lighteval's details.",
            rows,
            "columns doc, model_response, metric (or full_prompt, gold_index)",
        )
    )


def _newer(key: str, row: Mapping[str, Any], where: str) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    doc, response = row["doc"], row.get("model_response") or {}
    asked = response.get("input") if isinstance(response, Mapping) else None
    prompt = asked if isinstance(asked, str) else str(doc.get("query", ""))
    return _made(
        key, doc, prompt, doc.get("choices"), doc.get("gold_index"), response.get("logprobs"), row.get("metric")
    )


def _older(key: str, row: Mapping[str, Any]) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    predictions = row.get("predictions")
    told = row.get("metrics") or {name: row[name] for name in row if name in METRICS}
    logp = [_first(prediction) for prediction in predictions] if isinstance(predictions, list) else None
    document = {"example": row.get("example"), **(row.get("specifics") or {})}
    return _made(key, document, str(row.get("full_prompt", "")), row.get("choices"), row.get("gold_index"), logp, told)


def _made(
    key: str, document: Mapping[str, Any], prompt: str, choices: Any, gold: Any, logp: Any, told: Any
) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    texts = tuple(str(choice) for choice in choices or ())
    right = [int(n) for n in _flat(gold) if isinstance(n, int)] or [-1]
    scores = [float(v) for v in _flat(logp) if isinstance(v, int | float) and math.isfinite(v)]
    usable = len(texts) > 1 and len(scores) == len(texts) and all(0 <= n < len(texts) for n in right)
    values: dict[str, float | tuple[float, float]] = {}
    metrics: dict[str, LoggedMetric] = {}
    for name, value in dict(told or {}).items():
        if isinstance(value, bool | int | float) and math.isfinite(value):
            known = METRICS.get(name) or LoggedMetric(name, unit="the log's own")
            values.setdefault(known.name, (float(value), 1.0) if known.form != "mean" else float(value))
            metrics.setdefault(known.name, known)
    shown = json.dumps([prompt[-2000:], texts], ensure_ascii=False)
    sample = LoggedSample(
        key=key,
        doc_hash=hashlib.sha256(
            json.dumps([document.get("query") or document.get("example"), texts]).encode("utf-8")
        ).hexdigest(),
        prompt=prompt,
        choices=texts if usable else (),
        gold=right[0] if usable else None,
        also_right=tuple(right[1:]) if usable else (),
        logp=tuple(scores) if usable else None,
        values=values,
        prompt_hash=hashlib.sha256(shown.encode("utf-8")).hexdigest(),
        document=short_fields({k: v for k, v in document.items() if v is not None}),
        answers=tuple(texts[n] for n in right if 0 <= n < len(texts) and texts[n].strip()) if not usable else (),
    )
    return sample, metrics


def _first(value: Any) -> Any:
    return next(iter(_flat(value)), None)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif value is not None:
        yield value
