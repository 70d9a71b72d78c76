"""Read lm-evaluation-harness logs: samples beside results, of 0.4.0 to today, and of harnesses that write the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from taxlens.analysis.logs.lm_eval_files import SampleFile, groups_of, results_of, sample_files
from taxlens.analysis.logs.lm_eval_samples import looks_rendered, sample_of
from taxlens.analysis.logs.logged_metrics import CORPUS, METRICS, LoggedMetric
from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside, json_lines
from taxlens.core.errors import ItemError, explain, one_of

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def is_lm_eval(path: Path) -> bool:
    """Whether a path is an lm-eval samples file, or a folder that holds one (its newest sub-folders included)."""
    return bool(sample_files(path))


def read_lm_eval(path: Path, *, filter_name: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of an lm-eval log.

    Args:
        path: a samples file, or a folder with such files (of one model).
        filter_name: which of the harness's filters to read where a task has several; by default the first.

    Returns:
        {task: LoggedTask}; of several dates of one task the newest, with a note.

    Raises:
        ItemError: a sample that cannot be read, or a document logged twice.
        CheckError: a file that leaves the folder.
    """
    folder = path if path.is_dir() else path.parent
    newest: dict[str, SampleFile] = {}
    older: dict[str, int] = {}
    for file in sample_files(path):
        if file.task in newest:
            older[file.task] = older.get(file.task, 0) + 1
        if file.task not in newest or file.date > newest[file.task].date:
            newest[file.task] = file
    return {task: _task(file, folder, filter_name, older.get(task, 0)) for task, file in sorted(newest.items())}


def _task(file: SampleFile, folder: Path, filter_name: str | None, older: int) -> LoggedTask:
    task = file.task
    results, found = results_of(file, folder)
    higher = results.get("higher_is_better", {}).get(task)
    samples, metrics, chosen, notes = _samples(
        inside(folder, file.path), filter_name, higher if isinstance(higher, dict) else {}
    )
    if older:
        notes.append(f"{task}: {older} older log(s) passed over, read {file.path.name}.")
    if found is None:
        notes.append(f"{task}: no results file beside {file.path.name}: settings and totals of this log are not known.")
    first = next(iter(samples.values()))
    chat = bool(results.get("chat_template")) or bool(first.messages) or bool(results.get("apply_chat_template"))
    rendered = not first.messages and looks_rendered(first.prompt or "".join(first.contexts[:1]))
    if found is None and rendered:
        notes.append(f"{task}: prompts hold the marks of a chat template: they are taken as chat.")
    chat = chat or (found is None and rendered)
    if chat and not first.messages:
        samples = {key: replace(sample, rendered=True) for key, sample in samples.items()}
    notes += _corpus_notes(results, task)
    return LoggedTask(
        name=task,
        source=str(file.path),
        model=str(
            results.get("model_name")
            or _model_args(results).get("pretrained")
            or _model_args(results).get("model")
            or "unknown"
        ),
        template="chat" if chat else "plain",
        settings=_settings(results, task),
        samples=samples,
        metrics=metrics,
        totals=_totals(results, task, chosen, metrics),
        special_tokens=_special_tokens(results),
        groups={group: _group_totals(results, group) for group in groups_of(results, task)},
        notes=tuple(notes),
    )


def _model_args(results: Mapping[str, Any]) -> dict[str, str]:
    given = results.get("config", {}).get("model_args")
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    pairs = (part.split("=", 1) for part in str(given or "").split(",") if "=" in part)
    return {name.strip(): value.strip() for name, value in pairs}


def _special_tokens(results: Mapping[str, Any]) -> bool | None:
    """Whether this version of the harness put BOS before every prompt.

    From 0.4.10 on the tokenizer decides, and a prompt that begins with BOS gets none (None here). Before, a causal model
    had none unless ``add_bos_token=True``, or the model was a Gemma, which then had it even where the template wrote one.
    """
    asked = _model_args(results).get("add_bos_token")
    version = re.match(r"(\d+)\.(\d+)\.(\d+)", str(results.get("lm_eval_version") or ""))
    if version and tuple(map(int, version.groups())) < (0, 4, 10):
        backend = str(results.get("model_source") or results.get("config", {}).get("model") or "hf")
        if not backend.startswith(("hf", "vllm", "local-hf")):
            return None
        names = f"{results.get('model_name', '')} {_model_args(results).get('pretrained', '')}".lower()
        return asked == "True" or (asked is None and "gemma" in names)
    return False if asked == "False" else None


def _settings(results: Mapping[str, Any], task: str) -> dict[str, str]:
    config = results.get("configs", {}).get(task, {})
    arguments = _model_args(results)
    values = {
        "task version": results.get("versions", {}).get(task),
        "few-shot examples": results.get("n-shot", {}).get(task),
        "chat template": results.get("chat_template_sha"),
        "system instruction": results.get("system_instruction_sha") or results.get("system_instruction"),
        "few-shot as turns": results.get("fewshot_as_multiturn"),
        "prompt": config.get("doc_to_text"),
        "description": config.get("description"),
        "delimiter": config.get("target_delimiter"),
        "generation": config.get("generation_kwargs"),
        "repeats": config.get("repeats"),
        "few-shot seed": results.get("config", {}).get("fewshot_seed"),
        "limit": results.get("config", {}).get("limit"),
        "dtype": arguments.get("dtype"),
        "BOS": arguments.get("add_bos_token"),
        "longest sequence": arguments.get("max_length"),
        "harness": results.get("lm_eval_version") or results.get("git_hash"),
    }
    return {name: _ADDRESS.sub("", str(value)) for name, value in values.items() if value is not None}


def _totals(
    results: Mapping[str, Any], task: str, chosen: str, metrics: Mapping[str, LoggedMetric]
) -> dict[str, float]:
    """The log's own aggregates of the filter that was read, by the names of the metrics here; and the documents."""
    found: dict[str, float] = {}
    for name, value in results.get("results", {}).get(task, {}).items():
        metric, _, filtered = str(name).partition(",")
        if isinstance(value, int | float) and filtered in ("", chosen):
            known = METRICS.get(metric, LoggedMetric(metric)).name
            if known == "accuracy" and "mc2" in metrics:
                known = "mc2"
            found.setdefault(known, float(value))
    count = results.get("n-samples", {}).get(task)
    if isinstance(count, Mapping) and isinstance(count.get("effective"), int):
        found["documents"] = float(count["effective"])
    return found


def _corpus_notes(results: Mapping[str, Any], task: str) -> list[str]:
    """Metrics that exist for all documents together alone, and so have no tax by item."""
    names = dict.fromkeys(str(name).partition(",")[0] for name in results.get("results", {}).get(task, {}))
    named = [name for name in names if name in CORPUS]
    return [f"{task}: {', '.join(named)} exist(s) for the whole corpus alone and is left out."] if named else []


def _group_totals(results: Mapping[str, Any], group: str) -> dict[str, float]:
    """The log's own aggregates of a group of tasks, by the names of the metrics here."""
    found: dict[str, float] = {}
    logged = results.get("groups", {}).get(group) or results.get("results", {}).get(group, {})
    for name, value in logged.items():
        metric = str(name).partition(",")[0]
        if isinstance(value, int | float) and metric in METRICS:
            found.setdefault(METRICS[metric].name, float(value))
    return found


def _samples(
    file: Path, filter_name: str | None, higher: Mapping[str, Any]
) -> tuple[dict[str, LoggedSample], dict[str, LoggedMetric], str, list[str]]:
    filters = _filters(file)
    if not filters:
        raise ItemError(explain("the log holds no samples.", [("file", file)]))
    chosen = one_of(filter_name, filters, what="filter", error=ItemError) if filter_name else filters[0]
    notes = [f"{file.name}: read filter {chosen!r} of {', '.join(filters)}."] if len(filters) > 1 else []
    samples: dict[str, LoggedSample] = {}
    metrics: dict[str, LoggedMetric] = {}
    for number, line in _lines(file):
        if str(line["filter"]) != chosen:
            continue
        sample, found = sample_of(line, f"{file}:{number}", higher=higher)
        if sample.key in samples:
            rows = [("at", f"{file}:{number}"), ("doc_id", sample.key)]
            raise ItemError(explain("a document is logged twice.", rows, "evaluate again into an empty folder."))
        samples[sample.key] = sample
        metrics |= {name: metric for name, metric in found.items() if name not in metrics}
    lacking = {name for name in metrics if any(name not in sample.values for sample in samples.values())}
    if lacking:
        notes.append(f"{file.name}: {', '.join(sorted(lacking))} is logged for some documents only and left out.")
    return samples, {name: metric for name, metric in metrics.items() if name not in lacking}, chosen, notes


def _filters(file: Path) -> list[str]:
    return list(dict.fromkeys(str(line["filter"]) for _, line in _lines(file)))


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines with their filter; where the harness wrote none (0.4.3 to 0.4.7), the repeats of a document are its filters."""
    seen: dict[str, tuple[int, set[str]]] = {}
    for number, line in json_lines(file):
        if "filter" not in line:
            key, shown = (
                str(line.get("doc_id")),
                repr((line.get("filtered_resps"), line.get("exact_match"), line.get("acc"))),
            )
            count, texts = seen.get(key, (0, set()))
            if count and not _several_filters(line):
                raise ItemError(_twice(file, number, key))
            line["filter"] = "none" if not count else f"filter {count + 1}"
            seen[key] = (count + 1, texts | {shown})
        yield number, line


def _several_filters(line: Mapping[str, Any]) -> bool:
    """Whether a line is of a generated answer, which alone has several filters."""
    given = line.get("arguments")
    first = next(iter(given.values()), {}) if isinstance(given, dict) else (given or [()])[0]
    second = first.get("arg_1") if isinstance(first, dict) else (first[1] if len(first) > 1 else None)
    return isinstance(second, dict)


def _twice(file: Path, number: int, key: str) -> str:
    rows = [("at", f"{file}:{number}"), ("doc_id", key)]
    return explain("a document is logged twice.", rows, "evaluate again into an empty folder.")
