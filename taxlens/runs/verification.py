"""Whether a run is finished, whole and of one piece: everything that verify looks at."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

from taxlens.core.artifacts import is_temporary, sha256_file
from taxlens.runs.log import log_problems
from taxlens.runs.provenance import section_of, settings_differences
from taxlens.runs.recording import files_of

if TYPE_CHECKING:
    from taxlens.runs.folder import Run


def problems(run: Run) -> list[str]:
    """Return everything that is not as a finished run should be, one line each (empty: nothing).

    Unfinished stages, a process at work, changed, missing and unknown files, what killed processes left, stages that were
    made from settings or files that the run no longer has, and a log that is not what was written. The seal of run.json
    itself is checked when the run is opened.
    """
    found = [*_unfinished(run), *_files(run)]
    if run.manifest["schema"] == 1:
        return [*found, "format 1: run.json has no seal, the log no hash, and stages say not what they were made from"]
    stale = [
        f"stage {name}: {why}" for name in run.manifest["stages"] if run.done(name) and (why := outdated(run, name))
    ]
    return [*found, *stale, *log_problems(run.folder / "log.jsonl", run.manifest["log"])]


def outdated(run: Run, stage: str) -> str | None:
    """Return why a finished stage does not go with the rest of the run: other settings or other inputs; None if it does."""
    entry = run.manifest["stages"][stage]
    if "section" not in entry:
        return None
    changed = settings_differences(entry["section"], section_of(run.manifest["config"]["resolved"], stage))
    if changed:
        return "made with other settings ({})".format("; ".join(f"{key} {told}" for key, told in changed[:3]))
    outputs = run.outputs
    for name, digest in entry.get("inputs", {}).items():
        if outputs.get(name) != digest:
            return f"made from another {name}"
    return None


def damaged(run: Run, stage: str) -> list[str]:
    """Return the outputs of a stage that are missing or not as they were written."""
    outputs = run.manifest["stages"].get(stage, {}).get("outputs", {})
    paths = {name: run.folder / name for name in outputs}
    return [name for name, path in paths.items() if not path.is_file() or sha256_file(path) != outputs[name]]


def in_use(run: Run) -> bool:
    """Whether a process works in the run's folder now; found out without writing there."""
    if run.held:
        return False
    try:
        with open(run.folder / ".lock", "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _unfinished(run: Run) -> list[str]:
    manifest = run.manifest
    found = ["in use: another process works in this folder"] if in_use(run) else []
    if manifest["status"] != "success":
        found.append(f"status: {manifest['status']}, not success")
    stages = manifest["stages"]
    planned = [*manifest.get("planned", ()), *(name for name in stages if name not in manifest.get("planned", ()))]
    ended = {name: stages.get(name, {}).get("status", "not run") for name in planned}
    return found + [f"stage {name}: {status}, not success" for name, status in ended.items() if status != "success"]


def _files(run: Run) -> list[str]:
    recorded, there = run.outputs, files_of(run.folder)
    hashes = {name: sha256_file(run.folder / name) for name in there}
    left = [path for path in run.folder.rglob(".*.tmp") if is_temporary(path)]
    return [
        *(f"changed: {name}" for name in recorded if name in hashes and hashes[name] != recorded[name]),
        *(f"missing: {name}" for name in recorded if name not in hashes),
        *(f"not in the manifest: {name}" for name in hashes if name not in recorded),
        *(f"unfinished, of a process that was stopped: {path.relative_to(run.folder)}" for path in left),
    ]
