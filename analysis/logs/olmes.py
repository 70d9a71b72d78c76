"""Read OLMES predictions: ``task-NNN-NAME-predictions.jsonl`` with ``-requests.jsonl`` and ``-metrics.json`` beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxlens.analysis.logs.lm_eval_samples import document_hash
from taxlens.analysis.logs.logged_metrics import METRICS, LoggedMetric
from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside, json_lines, missing_field, short_fields
from taxlens.core.errors import ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

_FILE = re.compile(r"(?:task-\d+-)?(?P<task>.+?)-predictions\.jsonl")
_NO_METRIC = re.compile(
    r"predicted_index.*|correct_choice|no_answer|.*_bits.*|logits_per.*|sum_logits.*|num_.*|max_.*|correct_prob.*|margin.*"
)


def is_olmes(path: Path) -> bool:
    """Whether a path is an OLMES predictions file, or a folder that holds one."""
    return bool(_files(path))


def read_olmes(path: Path) -> dict[str, LoggedTask]:
    """The tasks of an OLMES log.

    Prompts come from the requests file beside the predictions (``--save-raw-requests true``); without it the suite has
    none, and a note says so.

    Raises:
        ItemError: a prediction that cannot be read.
        CheckError: a file that leaves the folder.
    """
    folder = path if path.is_dir() else path.parent
    return {task: _task(task, inside(folder, file), folder) for task, file in sorted(_files(path).items())}


def _files(path: Path) -> dict[str, Path]:
    files = [path] if path.is_file() else sorted(path.rglob("*-predictions.jsonl"))
    return {found["task"]: file for file in files if (found := _FILE.fullmatch(file.name))}


def _task(task: str, file: Path, folder: Path) -> LoggedTask:
    stem = file.name.removesuffix("-predictions.jsonl")
    requests = _requests(file.with_name(f"{stem}-requests.jsonl"), folder)
    summary = _json(file.with_name(f"{stem}-metrics.json"), folder)
    samples: dict[str, LoggedSample] = {}
    metrics: dict[str, LoggedMetric] = {}
    for number, line in json_lines(file):
        sample, found = _sample(line, requests, f"{file}:{number}")
        if sample.key in samples:
            rows = [("at", f"{file}:{number}"), ("doc_id", sample.key)]
            raise ItemError(explain("a document is logged twice.", rows, "evaluate again into an empty folder."))
        samples[sample.key] = sample
        metrics |= {name: metric for name, metric in found.items() if name not in metrics}
    if not samples:
        raise ItemError(explain("the log holds no samples.", [("file", file)]))
    metrics = {name: metric for name, metric in metrics.items() if all(name in s.values for s in samples.values())}
    config, told = summary.get("task_config", {}), summary.get("metrics", {})
    notes = (
        []
        if requests
        else [f"{task}: no requests beside {file.name}: the suite has no prompts (--save-raw-requests true)."]
    )
    return LoggedTask(
        name=task,
        source=str(file),
        model=str(summary.get("model_config", {}).get("model") or "unknown"),
        template="chat" if summary.get("model_config", {}).get("chat_model") else "plain",
        settings={
            name: str(value)
            for name, value in {
                "few-shot examples": config.get("num_shots"), "prompt": config.get("context_kwargs"), "task version": config.get("version"),
                "limit": config.get("limit"), "generation": config.get("generation_kwargs"), "split": config.get("split"),
            }.items()
            if value is not None
        },
        samples=samples,
        metrics=metrics,
        totals={METRICS[name].name: float(value) for name, value in told.items() if name in METRICS and isinstance(value, int | float)},
        notes=tuple(notes),
    )  # fmt: skip


def _requests(file: Path, folder: Path) -> dict[str, list[tuple[str, str | None, Mapping[str, Any]]]]:
    """{doc_id: [(context, continuation, document), ...]} in the order of the choices."""
    found: dict[str, list[tuple[str, str | None, Mapping[str, Any]]]] = {}
    if not file.is_file():
        return found
    for _, line in json_lines(inside(folder, file)):
        request = line.get("request", {})
        context = request.get("context", request.get("prompt", ""))
        if isinstance(context, dict):
            context = context.get("messages", "")
        found.setdefault(str(line.get("doc_id")), []).append(
            (context, request.get("continuation"), line.get("doc") or {})
        )
    return found


def _sample(
    line: Mapping[str, Any], requests: Mapping[str, Any], where: str
) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    for name in ("doc_id", "metrics"):
        if name not in line:
            raise missing_field(name, where, line)
    key = str(line["doc_id"])
    values: dict[str, float | tuple[float, float]] = {}
    metrics: dict[str, LoggedMetric] = {}
    for name, value in line["metrics"].items():
        if isinstance(value, bool | int | float) and not _NO_METRIC.fullmatch(name) and math.isfinite(value):
            known = METRICS.get(name) or LoggedMetric(name, unit="the log's own")
            values.setdefault(known.name, (float(value), 1.0) if known.form != "mean" else float(value))
            metrics.setdefault(known.name, known)
    asked = requests.get(key, [])
    said = line.get("model_output")
    outputs = said if isinstance(said, list) else []
    logp = [o["sum_logits"] for o in outputs if isinstance(o, dict) and isinstance(o.get("sum_logits"), int | float)]
    choices = tuple(str(continuation) for _, continuation, _ in asked if continuation is not None)
    label = line.get("label", line["metrics"].get("correct_choice"))
    usable = len(choices) > 1 and len(choices) == len(logp) and isinstance(label, int) and 0 <= label < len(choices)
    document = asked[0][2] if asked else {}
    context = asked[0][0] if asked and isinstance(asked[0][0], str) else ""
    sample = LoggedSample(
        key=key,
        doc_hash=str(line.get("native_id", "")) + (document_hash(document) if document else ""),
        prompt=context,
        choices=choices if usable else (),
        gold=label if usable else None,
        logp=tuple(float(value) for value in logp) if usable else None,
        values=values,
        prompt_hash="",
        document=short_fields(document),
        answers=() if usable or label is None else (str(label),),
    )
    return sample, metrics


def _json(file: Path, folder: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = parse_json(inside(folder, file).read_text(encoding="utf-8"), finite=False, unicode=False)
    except (UnicodeDecodeError, JsonError) as error:
        raise ItemError(
            explain("the metrics file of the log is no JSON.", [("file", file), ("reason", error)])
        ) from error
    return value if isinstance(value, dict) else {}
