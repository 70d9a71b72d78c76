"""Parts of one stage, made anywhere, as one run folder (or of a capture as one store) to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taxlens.core.errors import CheckError, StoreError, UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.runs.provenance import made_differences
from taxlens.runs.recording import WRITING
from taxlens.runs.workers import from_parts, request_of
from taxlens.stages import STAGES

if TYPE_CHECKING:
    from taxlens.activations.store.store import Store


def merge_stage(parts: Sequence[Path], *, out: Path, progress: Progress = SILENT) -> Run | None:
    """Do the stage that parts were made of with what they found, in a new run folder; None where they are captures.

    What no part has found (because it needed the others' results) is done here.

    Args:
        parts: run folders that `taxlens STAGE --shard K/N` left, in any order.
        out: the run folder to make.
        progress: shows what is under way.

    Raises:
        UsageError: a part is missing, or given twice.
        CheckError: parts are of different stages, configs, weights, items or versions, or damaged.
    """
    folders = [part for part in parts if (part / "run.json").is_file()]
    runs = [Run.open(folder) for folder in folders]
    if not runs or len(runs) < len(parts) or any(run.done("capture") or not run.manifest.get("part") for run in runs):
        return None
    _same_configs(runs)
    stages = sorted({name for run in runs for name in run.manifest["stages"]})
    numbers = sorted(int(run.manifest["part"][0]) for run in runs)
    count = int(runs[0].manifest["part"][1])
    if len(stages) != 1 or {int(run.manifest["part"][1]) for run in runs} != {count}:
        rows = [("stages", ", ".join(stages)), ("parts", ", ".join("{}/{}".format(*r.manifest["part"]) for r in runs))]
        raise CheckError(explain("these are not parts of one stage.", rows, "give every part, 1/N to N/N."))
    if numbers != list(range(1, count + 1)):
        rows = [("given", ", ".join(map(str, numbers))), ("of", count)]
        raise UsageError(explain("parts are missing, or given twice.", rows, "give every part once, 1/N to N/N."))
    first, name = runs[0], stages[0]
    for run in runs:
        run.checked("pieces")
        if not run.done(name):
            fix = f"taxlens {name} {run.folder} --resume"
            raise CheckError(explain("a part is unfinished.", [("part", run.folder), ("stage", name)], fix))
    made = Run.create(first.config, out, given=first.manifest["config"]["given"], root=first.root)
    with made.locked(), made.logged():
        job = RunContext(made, progress=progress, stages=stages)
        source = job.made_from(name)
        for run in runs:
            if rows := made_differences(run.manifest["stages"][name], source):
                title = f"{run.folder} was made from other settings, weights, items or versions."
                raise CheckError(explain(title, rows, "make all parts, and merge them, with the same."))
        places = [run.folder / "pieces" for run in runs]
        with made.stage(name, made_from=source), from_parts(places, request_of(name, source)):
            stage = next(one for one in STAGES if one.name == name)
            stage.compute(job, job.config.of(stage))
            made.manifest |= job.facts
        made.finish("success")
    return made


def merge_parts(parts: Sequence[Path], *, out: Path) -> Store:
    """Put all parts of one capture together, and return the store open.

    Args:
        parts: run folders that `taxlens capture --shard` left, or stores, in any order.
        out: what to write: a run folder if the parts are (later stages go on with it), else a store.

    Raises:
        UsageError: if something is there already, or parts of two kinds are given.
        CheckError: if parts are of different configs.
        StoreError: if a part is damaged, unfinished or missing, or parts do not belong together.
    """
    from taxlens.activations.capture.merge import merge

    folders = [part for part in parts if (part / "run.json").is_file()]
    if not folders or out.suffix == ".h5":
        return merge(parts, to=out, whole=True)
    if len(folders) < len(parts):
        rows = [("run folder", folders[0]), ("no run folder", next(p for p in parts if p not in folders))]
        raise UsageError(explain("parts are run folders and stores.", rows, "give run folders only, or --out NAME.h5."))
    runs = [Run.open(folder) for folder in folders]
    _same_configs(runs)
    for run in runs:
        run.checked("activations.shards")
        if not run.done("capture"):
            rows = [
                ("part", run.folder),
                ("capture", run.manifest["stages"].get("capture", {}).get("status", "not run")),
            ]
            raise StoreError(explain("a part is unfinished.", rows, f"taxlens capture {run.folder} --resume"))
    first = runs[0]
    made = Run.create(first.config, out, given=first.manifest["config"]["given"], root=first.root)
    facts = {key: first.manifest[key] for key in ("pair", "suites", "versions")}
    entry = first.manifest["stages"]["capture"]
    source = {key: entry[key] for key in ("section", "seed", "versions", "pair", "suites")}
    try:
        with made.locked(), made.stage("capture", made_from=source):
            store = merge(parts, to=out / "activations.h5", whole=True)
            made.note(**facts, self_check=store.manifest["self_check"])
    except BaseException:
        _remove(made)
        raise
    seconds = sum(run.manifest["stages"]["capture"].get("seconds", 0.0) for run in runs)
    with made.locked():
        made.manifest["stages"]["capture"] |= {"seconds": round(seconds, 2), "parts": len(runs)}
        made.finish("success")
    return store


def _same_configs(runs: Sequence[Run]) -> None:
    one = runs[0]
    for other in runs[1:]:
        before, after = (run.manifest["config"]["resolved"] for run in (one, other))
        rows = [
            (key, f"{before.get(key)!r} | {value!r}"[:160]) for key, value in after.items() if before.get(key) != value
        ]
        if rows:
            title = f"{one.folder} and {other.folder} are parts of different runs."
            raise CheckError(explain(title, rows, "capture all parts with one config."))


def _remove(made: Run) -> None:
    """Leave nothing that looks like a run."""
    for name in ("run.json", ".lock", WRITING):
        (made.folder / name).unlink(missing_ok=True)
    if not any(made.folder.iterdir()):
        made.folder.rmdir()
