"""Read Inspect logs (``.eval`` and ``.json``) through ``inspect_ai``'s own reader, one sample at a time."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from taxlens.analysis.logs.inspect_samples import asked_of, choices_asked, targets_of
from taxlens.analysis.logs.inspect_scores import LoggedScores, scores_of
from taxlens.analysis.logs.records import LoggedSample, LoggedTask, inside, short_fields
from taxlens.core.errors import CheckError, ItemError, TaxlensError, explain
from taxlens.core.json_text import JsonError, parse_json

_BROKEN = (ValueError, OSError, LookupError, RecursionError, MemoryError, zlib.error, zipfile.BadZipFile)
_UNFINISHED = {"cancelled": "was cancelled", "error": "ended in an error", "started": "was not finished"}
_GENERATION = ("temperature", "top_p", "top_k", "max_tokens", "seed", "stop_seqs", "reasoning_effort", "num_choices")


def is_inspect(path: Path) -> bool:
    """Whether a path is an Inspect log file, or a folder that holds one."""
    return bool(_files(path))


def read_inspect(path: Path, *, scorer: str | None = None) -> dict[str, LoggedTask]:
    """The tasks of an Inspect log.

    Epochs of a sample are reduced as the log's own reducer does it (mean, mode, max, at_least_k, pass_at_k, ...). A score is
    read as Inspect's accuracy reads it: C, I, P, N, yes, no, true, false or a number. Samples that ended in an error or
    have no score are left out and counted, as Inspect itself leaves them out.

    Args:
        path: an ``.eval`` or ``.json`` log, or a folder with such logs (of one model); of several of one task the one
            that succeeded.
        scorer: which scorer to read where a task has several, or which key of a score that has several; by default
            the first scorer with all its keys.

    Returns:
        {task: LoggedTask}.

    Raises:
        TaxlensError: ``inspect_ai`` is not installed.
        ItemError: the log cannot be read or holds no samples, or two logs are of one task.
        CheckError: the archive holds a path that leaves it.
    """
    found: dict[str, list[tuple[Any, Path]]] = {}
    for file in _files(path):
        inside(path if path.is_dir() else path.parent, file)
        header = _header(file)
        found.setdefault(str(header.eval.task), []).append((header, file))
    return {name: _task(*_chosen(name, logs), scorer) for name, logs in found.items()}


def _chosen(name: str, logs: list[tuple[Any, Path]]) -> tuple[Any, Path, list[str]]:
    """The log of a task that is read where there are several: the one that succeeded."""
    good = [(header, file) for header, file in logs if header.status == "success"]
    usable = good or logs
    if len(usable) > 1:
        rows = [("task", name), ("first", usable[0][1]), ("second", usable[1][1])]
        raise ItemError(explain("two logs are of one task.", rows, "give the one log file."))
    others = [f"{file.name} ({header.status})" for header, file in logs if file != usable[0][1]]
    notes = [f"{name}: passed over {', '.join(others)}, read {usable[0][1].name}."] if others else []
    return (*usable[0], notes)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.eval"), *(f for f in path.glob("*.json") if _is_json_log(f))])
    return [path] if path.suffix == ".eval" or (path.suffix == ".json" and _is_json_log(path)) else []


def _is_json_log(file: Path) -> bool:
    try:
        value = parse_json(file.read_text(encoding="utf-8"), finite=False, unicode=False)
    except (UnicodeDecodeError, JsonError, OSError):
        return False
    described = isinstance(value, dict) and isinstance(value.get("eval"), dict) and "task" in value["eval"]
    return bool(described and ("version" in value or "samples" in value or "status" in value))


def _header(file: Path) -> Any:
    if file.suffix == ".eval":
        _check_archive(file)
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        rows = [("log", file)]
        raise TaxlensError(explain("Inspect logs need inspect_ai.", rows, "pip install 'taxlens[inspect]'")) from error
    for header_only in (True, False):  # the whole of a log may be read where its head alone is not
        try:
            return read_eval_log(str(file), header_only=header_only)
        except _BROKEN as error:
            if not header_only or file.suffix == ".eval":
                raise _unreadable(file, error) from error
    raise AssertionError  # the second pass returns or raises


def _unreadable(file: Path, error: Exception) -> ItemError:
    rows = [("log", file), ("reason", str(error).split("\n")[0])]
    return ItemError(explain("the Inspect log cannot be read.", rows, "was the log cut short?"))


def _read_samples(file: Path) -> Iterator[Any]:
    """The samples of a log one by one; of a ``.json`` log, which is one text, all at once."""
    from inspect_ai.log import read_eval_log, read_eval_log_samples

    try:
        if file.suffix == ".eval":
            try:
                yield from read_eval_log_samples(str(file), all_samples_required=False, resolve_attachments="core")
                return
            except RuntimeError:
                pass  # a log that does not list its samples is read whole
        yield from read_eval_log(str(file), resolve_attachments="core").samples or ()
    except _BROKEN as error:
        raise _unreadable(file, error) from error


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


def _task(header: Any, file: Path, notes: list[str], scorer: str | None) -> LoggedTask:
    """A log as a task: samples in order of their first epoch, scores reduced over epochs."""
    spec, name = header.eval, str(header.eval.task)
    first: dict[str, LoggedSample] = {}
    scores = LoggedScores(scorer, reducers=tuple(spec.config.epochs_reducer or ("mean",)))
    system, solved = "", True
    for sample in _read_samples(file):
        key = str(sample.id)
        scores.add(key, sample, file)
        if key not in first:
            first[key], asked, told = _sample(key, sample)
            solved, system = solved and asked, system or told
    if not first:
        rows = [("log", file), ("status", header.status), ("error", getattr(header.error, "message", "none"))]
        raise ItemError(explain("the Inspect log holds no samples.", rows, "log samples, and give the whole log."))
    found = scores_of(scores, header, file)
    notes = [*notes, *(f"{name}: {note}" for note in found.notes)]
    if header.status in _UNFINISHED:
        notes.append(f"{name}: the evaluation {_UNFINISHED[header.status]} ({file.name}): what it holds is a part.")
    if not solved:
        notes.append(
            f"{name}: the log has no messages: prompts are the samples' inputs, without what solvers added "
            "(system text, list of choices): do not expect the logged numbers from them."
        )
    kept = {key: found.with_values(sample) for key, sample in first.items() if key in found.values}
    return LoggedTask(
        name=name,
        source=str(file),
        model=str(spec.model),
        template="chat",
        settings=_settings(header, system),
        samples=kept,
        metrics=found.metrics,
        totals=found.totals,
        left_out=tuple(key for key in first if key not in found.values),
        notes=tuple(notes),
    )


def _settings(header: Any, system: str) -> dict[str, str]:
    spec, steps = header.eval, header.plan.steps if header.plan else []
    generation = {
        **_given(getattr(header.plan, "config", None)),
        **_given(getattr(spec, "model_generate_config", None)),
    }
    solvers = [
        step.solver + (json.dumps(step.params, sort_keys=True, default=str) if step.params else "") for step in steps
    ]
    values = {
        "task version": str(spec.task_version),
        "task arguments": json.dumps(spec.task_args, sort_keys=True, default=str),
        "dataset": f"{spec.dataset.name} ({spec.dataset.samples} samples)",
        "solver": ", ".join(solvers),
        "system text": system,
        "generation": json.dumps(generation, sort_keys=True, default=str),
        "epochs": str(spec.config.epochs or 1),
        "reducer": ", ".join(spec.config.epochs_reducer or ("mean",)),
        "harness": str((spec.packages or {}).get("inspect_ai", "")),
    }
    return values


def _given(config: Any) -> dict[str, Any]:
    return {name: value for name in _GENERATION if (value := getattr(config, name, None)) is not None}


def _sample(key: str, sample: Any) -> tuple[LoggedSample, bool, str]:
    """(the sample without its values, whether the log shows what was sent, the system text)."""
    messages, shown = asked_of(sample)
    targets = targets_of(sample)
    choices, right, prefix = choices_asked(sample, messages, targets)
    given = sample.input if isinstance(sample.input, str) else "\n".join(m.text for m in sample.input)
    made = LoggedSample(
        key=key,
        doc_hash=json.dumps([given, list(sample.choices or ()), targets]),
        prompt="\n\n".join(message["content"] for message in messages),
        choices=choices,
        gold=right[0] if right else None,
        also_right=right[1:],
        logp=None,
        values={},
        prompt_hash=hashlib.sha256(json.dumps(messages, sort_keys=True).encode("utf-8")).hexdigest() if shown else "",
        document=short_fields(sample.metadata or {}),
        messages=messages,
        answers=tuple(f"{prefix}{choices[n].strip().removeprefix(prefix)}" for n in right)
        if choices
        else tuple(t for t in targets if t.strip()),
        match="contains" if choices else "",
    )
    return made, shown, next((message["content"] for message in messages if message["role"] == "system"), "")
