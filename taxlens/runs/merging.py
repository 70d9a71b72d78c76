"""Parts of one capture, made anywhere, as one run folder (or one store) to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taxlens.core.errors import CheckError, StoreError, UsageError, explain
from taxlens.runs.folder import Run
from taxlens.runs.recording import WRITING

if TYPE_CHECKING:
    from taxlens.activations.store.store import Store


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
