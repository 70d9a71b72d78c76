"""Read lm-evaluation-harness logs: ``samples_TASK_DATE.jsonl`` beside ``results_DATE.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside, json_lines, missing_field
from taxlens.core.errors import ItemError, explain, one_of
from taxlens.core.json_text import JsonError, parse_json

KNOWN = {"acc": "accuracy", "acc_norm": "accuracy_norm", "exact_match": "exact_match"}
_SAMPLES = re.compile(r"samples_(?P<task>.+?)_(?P<date>\d{4}-\d\d-\d\dT[\d\-.]+)\.jsonl")


def is_lm_eval(path: Path) -> bool:
    """Whether a path is an lm-eval samples file, or a folder that holds one (its newest sub-folders included)."""
    return bool(_sample_files(path))


def read_lm_eval(path: Path, *, filter_name: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of an lm-eval log.

    Args:
        path: a ``samples_*.jsonl`` file, or a folder with such files (of one model).
        filter_name: which of the harness's filters to read where a task has several; by default the first.

    Returns:
        {task: LoggedTask}; of several dates of one task the newest, with a note.

    Raises:
        ItemError: a sample that cannot be read, or a document logged twice.
        CheckError: a file that leaves the folder.
    """
    folder = path if path.is_dir() else path.parent
    newest: dict[str, tuple[str, Path]] = {}
    older: dict[str, int] = {}
    for task, date, file in _sample_files(path):
        if task in newest:
            older[task] = older.get(task, 0) + 1
        if task not in newest or date > newest[task][0]:
            newest[task] = (date, file)
    tasks = {}
    for task, (date, file) in sorted(newest.items()):
        results = _results(inside(folder, file).parent, date, folder)
        samples, notes = _samples(inside(folder, file), filter_name)
        if older.get(task):
            notes.append(f"{task}: {older[task]} older log(s) passed over, read {file.name}.")
        tasks[task] = LoggedTask(
            name=task,
            source=str(file),
            model=str(results.get("model_name") or results.get("config", {}).get("model_args") or "unknown"),
            template="chat" if results.get("chat_template") else "plain",
            settings=_settings(results, task),
            samples=samples,
            notes=tuple(notes),
        )
    return tasks


def _sample_files(path: Path) -> list[tuple[str, str, Path]]:
    files = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"))
    found = [(_SAMPLES.fullmatch(file.name), file) for file in files]
    return [(match["task"], match["date"], file) for match, file in found if match]


def _results(where: Path, date: str, folder: Path) -> dict[str, Any]:
    file = where / f"results_{date}.json"
    if not file.is_file():
        return {}
    try:
        value = parse_json(inside(folder, file).read_text(encoding="utf-8"), finite=False)
    except (UnicodeDecodeError, JsonError) as error:
        raise ItemError(
            explain("the results file of the log is no JSON.", [("file", file), ("reason", error)])
        ) from error
    return value if isinstance(value, dict) else {}


def _settings(results: Mapping[str, Any], task: str) -> dict[str, str]:
    config = results.get("configs", {}).get(task, {})
    values = {
        "task version": results.get("versions", {}).get(task),
        "few-shot examples": results.get("n-shot", {}).get(task),
        "chat template": results.get("chat_template_sha"),
        "system instruction": results.get("system_instruction_sha") or results.get("system_instruction"),
        "few-shot as turns": results.get("fewshot_as_multiturn"),
        "prompt": config.get("doc_to_text"),
        "description": config.get("description"),
        "few-shot seed": results.get("config", {}).get("fewshot_seed"),
        "limit": results.get("config", {}).get("limit"),
        "harness": results.get("lm_eval_version") or results.get("git_hash"),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _samples(file: Path, filter_name: str | None) -> tuple[dict[str, LoggedSample], list[str]]:
    lines = list(json_lines(file))
    filters = list(dict.fromkeys(str(line.get("filter", "none")) for _, line in lines))
    if not filters:
        raise ItemError(explain("the log holds no samples.", [("file", file)]))
    chosen = one_of(filter_name, filters, what="filter", error=ItemError) if filter_name else filters[0]
    notes = [f"{file.name}: read filter {chosen!r} of {', '.join(filters)}."] if len(filters) > 1 else []
    samples: dict[str, LoggedSample] = {}
    for number, line in lines:
        if str(line.get("filter", "none")) != chosen:
            continue
        sample = _sample(line, f"{file}:{number}")
        if sample.key in samples:
            rows = [("at", f"{file}:{number}"), ("doc_id", sample.key)]
            raise ItemError(explain("a document is logged twice.", rows, "evaluate again into an empty folder."))
        samples[sample.key] = sample
    return samples, notes


def _sample(line: Mapping[str, Any], where: str) -> LoggedSample:
    for name in ("doc_id", "arguments", "filtered_resps"):
        if name not in line:
            raise missing_field(name, where, line)
    document = line["doc"] if isinstance(line.get("doc"), dict) else {}
    arguments = _arguments(line["arguments"])
    scored = [pair for pair in arguments if isinstance(pair[1], str)]
    values = {ours: float(line[theirs]) for theirs, ours in KNOWN.items() if isinstance(line.get(theirs), int | float)}
    common = {
        "key": str(line["doc_id"]),
        "doc_hash": str(line.get("doc_hash") or json.dumps(document, sort_keys=True)),
        "prompt_hash": str(line.get("prompt_hash") or ""),
        "document": document,
        "values": values,
    }
    if len(scored) < 2:
        return LoggedSample(prompt=str(arguments[0][0]), choices=(), gold=None, logp=None, **common)
    choices = tuple(choice for _, choice in scored)
    logp = tuple(float(pair[0]) for pair in line["filtered_resps"])
    if len(logp) != len(choices):
        rows = [("at", where), ("choices", len(choices)), ("log-probabilities", len(logp))]
        raise ItemError(explain("a sample has not one log-probability a choice.", rows))
    contexts = tuple(str(prompt) for prompt, _ in scored)
    if len(set(contexts)) == 1:
        gold = _gold(line, choices, where)
        return LoggedSample(prompt=contexts[0], choices=choices, gold=gold, logp=logp, **common)
    _check_gap(contexts, choices, where)
    gold = _gap_gold(line, document, logp, where)
    return LoggedSample(prompt="", choices=choices, gold=gold, logp=logp, contexts=contexts, **common)


def _check_gap(contexts: tuple[str, ...], choices: tuple[str, ...], where: str) -> None:
    """Contexts that differ must do so for every choice, and their continuation must be one."""
    if len(set(contexts)) == len(contexts) and len(set(choices)) == 1:
        return
    rows = [
        ("at", where),
        ("contexts", f"{len(set(contexts))} different of {len(contexts)}"),
        ("continuations", f"{len(set(choices))} different of {len(choices)}"),
    ]
    fix = "taxlens reads one prompt with several choices, or several contexts with one continuation (Winogrande)."
    raise ItemError(explain("the choices of a sample have different prompts.", rows, fix))


def _gap_gold(line: Mapping[str, Any], document: Mapping[str, Any], logp: tuple[float, ...], where: str) -> int:
    """Which context is right: the harness logs the continuation as target, so it follows from what acc says."""
    best = max(range(len(logp)), key=lambda place: logp[place])  # the first of equals, as the harness takes it
    if line.get("acc") in (1, 1.0):
        return best
    if line.get("acc") in (0, 0.0):
        others = [place for place in range(len(logp)) if place != best]
        named = [place for place in others if str(document.get("answer", "")).strip() == str(place + 1)]
        if len(others) == 1 or len(named) == 1:
            return others[0] if len(others) == 1 else named[0]
    rows = [("at", where), ("acc", line.get("acc")), ("contexts", len(logp)), ("fields", ", ".join(document))]
    fix = "such a log tells the right context by acc of two choices, or by a document field 'answer' of 1, 2, ..."
    raise ItemError(explain("the log does not tell which of a sample's contexts is right.", rows, fix))


def _arguments(given: Any) -> list[tuple[Any, Any]]:
    """(context, continuation or options) pairs, in either of the two shapes that the harness writes."""
    if isinstance(given, dict):
        entries = sorted(given.items(), key=lambda entry: int(entry[0].rsplit("_", 1)[-1]))
        return [(value.get("arg_0"), value.get("arg_1")) for _, value in entries]
    return [(pair[0], pair[1] if len(pair) > 1 else None) for pair in given]


def _gold(line: Mapping[str, Any], choices: tuple[str, ...], where: str) -> int:
    target = line.get("target")
    text = str(target).strip()
    if text.lstrip("-").isdigit() and 0 <= int(text) < len(choices):
        return int(text)
    stripped = [choice.strip() for choice in choices]
    if stripped.count(text) == 1:
        return stripped.index(text)
    rows = [("at", where), ("target", repr(target)), ("choices", ", ".join(map(repr, choices)))]
    raise ItemError(explain("the target of a sample names none of its choices, or several.", rows))
