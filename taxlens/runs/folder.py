"""The run folder: locked before anything is written, every stage's outputs hashed, readable as a notebook object."""

from __future__ import annotations

import fcntl
import html
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from taxlens.config.schema import Config, build_config, stored_values
from taxlens.core.artifacts import is_temporary, remove_leftovers, sha256_file, watched, write_json, write_table
from taxlens.core.errors import CheckError, UsageError, explain, one_of
from taxlens.core.interrupts import interrupted
from taxlens.core.table import Table
from taxlens.runs.log import logged_to, session
from taxlens.runs.manifest import SCHEMA, new_manifest, now, read_manifest, seal
from taxlens.runs.provenance import made_differences
from taxlens.runs.recording import WRITING, StageRecord, begun, files_of, remove
from taxlens.runs.verification import outdated, problems
from taxlens.stages import STAGES, TABLES

logger = logging.getLogger(__name__)
BY_HAND = "notebook"
"""Entry of the manifest for tables that are written outside a stage."""


def new_folder(folder: Path | str) -> Path:
    """Return the path of a run folder to make: links and ".." followed first, then checked to be absent or empty.

    What a process left that was killed before its first run.json does not count.

    Raises:
        UsageError: if something is there already, or the path is a link to nothing.
    """
    folder = Path(folder)
    real = folder.resolve()
    if folder.is_symlink() and not real.exists():
        rows = [("folder", folder), ("leads to", real)]
        raise UsageError(explain("the run folder is a link to nothing.", rows, "another --out, or remove the link"))
    if real.exists() and (not real.is_dir() or not all(_is_nothing(path) for path in real.iterdir())):
        rows = [("folder", folder), *([("that is", real)] if ".." in folder.parts else [])]
        fix = "another --out, or --resume to go on with it"
        raise UsageError(explain("the run folder exists already.", rows, fix))
    return real if ".." in folder.parts else folder


def _is_nothing(path: Path) -> bool:
    empty = path.name in ("run.json", ".lock") and path.is_file() and path.stat().st_size == 0
    return empty or (is_temporary(path) and not path.is_symlink())


class Run:
    """A run folder: its config, its manifest, its tables and figures; `told` is what a session said of changes.

    Example:
        >>> run = Run.open("runs/demo")            # doctest: +SKIP
        >>> run.table("attribution").head()        # doctest: +SKIP
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.writes = True
        self.held = False
        self.told: list[str] = []
        self._record: StageRecord | None = None
        self._take(manifest)

    def _take(self, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.config: Config = build_config(stored_values(manifest["config"]["resolved"]))
        self.root = Path(manifest["config"]["root"])

    @classmethod
    def create(cls, config: Config, folder: Path | str, *, given: dict[str, Any], root: Path | str) -> Run:
        """Make a new run folder.

        Raises:
            UsageError: if the folder exists and is not empty.
        """
        folder = new_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = json.loads(config.model_dump_json())
        run = cls(folder, new_manifest(given=given, resolved=resolved, root=str(Path(root).resolve())))
        with run._lock():
            new_folder(folder)  # nobody else was quicker
            remove_leftovers(folder)
            run.save()
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open an existing run folder; nothing is written.

        Raises:
            UsageError: if there is no readable `run.json` of a known schema in it.
            CheckError: if `run.json` was changed since it was written.
        """
        return cls(Path(folder), read_manifest(Path(folder)))

    @property
    def store(self) -> Path:
        """Where the run's activations are."""
        return self.folder / "activations.h5"

    def save(self) -> None:
        """Write the manifest, sealed by a hash of its content."""
        self.manifest["seal"] = seal(self.manifest)
        write_json(self.manifest, self.folder / "run.json")

    def note(self, **facts: Any) -> None:
        """Put facts into the manifest; they are written if this process works in the folder, and kept in memory if not."""
        self.manifest |= facts
        if self.held:
            self.save()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, and read its manifest again: before this, nothing may be written there.

        Raises:
            UsageError: if another process holds it, or the run was written by a version that is read only.
        """
        with self._lock():
            self._take(read_manifest(self.folder))
            if self.manifest["schema"] != SCHEMA:
                rows = [("folder", self.folder), ("written by", "taxlens 0.1")]
                fix = "its tables can be read; to go on, run the config again with another --out"
                raise UsageError(explain("a run of this older format is read only.", rows, fix))
            for path in remove_leftovers(self.folder):
                logger.info("removed what a stopped process left: %s", path.name)
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / ".lock", "a", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                rows = [("folder", self.folder)]
                raise UsageError(explain("another process works in this run folder.", rows, "wait for it")) from error
            self.held = True
            try:
                yield
            finally:
                self.held = False

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Log to the run's `log.jsonl` inside the block; its lines are sealed in the manifest on leaving it."""
        path, kept = self.folder / "log.jsonl", self.manifest["log"]
        end = kept[-1]["start"] + kept[-1]["bytes"] if kept else 0
        if path.is_file() and path.stat().st_size > end:
            kept.append(session(path, end) | {"unfinished": True})
        end = kept[-1]["start"] + kept[-1]["bytes"] if kept else 0
        try:
            with logged_to(path):
                yield
        finally:
            if (lines := session(path, end))["bytes"]:
                kept.append(lines)
                self.save()

    @contextmanager
    def stage(self, name: str, *, made_from: Mapping[str, Any] | None = None, keep: bool = False) -> Iterator[None]:
        """Record how a stage went: what it was made from, what it read, what it wrote, how long it took.

        Files that an earlier pass left and this one does not write again are removed when the stage has succeeded;
        files of others never.

        Args:
            name: the stage.
            made_from: "section", "pair", "suites", "seed", "versions", as `taxlens.runs.provenance` gives them.
            keep: keep what an earlier pass wrote (only a part is done again).
        """
        started, stages = time.perf_counter(), self.manifest["stages"]
        before, made = stages.get(name, {}), dict(made_from or {})
        others = {path for other, entry in stages.items() if other != name for path in entry.get("outputs", {})}
        earlier = dict.fromkeys(begun(self.folder)) | before.get("earlier", {}) | before.get("outputs", {})
        if made_differences(before, made):
            remove(self.folder, [path for path in earlier if path.startswith("frontier/")], but=others)
        stages[name] = {"status": "started", "started": now(), **made, "earlier": earlier}
        self.save()
        self._record = record = StageRecord(self.folder, others, earlier)
        logger.info("stage %s started", name)
        try:
            with watched(record.watch):
                yield
            record.adopt()
        except BaseException as error:
            stages[name]["status"] = "cancelled" if interrupted(error) else "error"
            unasked = isinstance(error, UsageError) and name not in self.manifest["planned"]
            if not record.outputs and (before.get("status") == "success" or unasked):
                stages.pop(name)  # refused before anything was done: what was there still holds
                stages |= {name: before} if before else {}
            raise
        finally:
            self._record = None
        outputs = {**(before.get("outputs", {}) if keep else {}), **record.outputs}
        for other, entry in stages.items():
            if other != name:
                entry["outputs"] = {path: one for path, one in entry.get("outputs", {}).items() if path not in outputs}
        remove(self.folder, earlier, but=others | set(outputs))
        stages[name] |= {"status": "success", "seconds": round(time.perf_counter() - started, 2)}
        stages[name] |= {"inputs": record.inputs, "outputs": outputs}
        del stages[name]["earlier"]
        self.save()
        (self.folder / WRITING).unlink(missing_ok=True)
        logger.info("stage %s done", name)

    def done(self, stage: str) -> bool:
        """Whether a stage has ended well in this folder."""
        return self.manifest["stages"].get(stage, {}).get("status") == "success"

    @property
    def ended(self) -> tuple[str, ...]:
        """The stages that have ended well, in the order in which a run does them."""
        order = [stage.name for stage in STAGES]
        known = [name for name in self.manifest["stages"] if self.done(name)]
        return tuple(sorted(known, key=lambda name: order.index(name) if name in order else len(order)))

    def finish(self, status: str, *, error: str | None = None) -> None:
        """Close the manifest with `success`, `error` or `cancelled`."""
        self.note(status=status, finished=now(), error=error)

    @property
    def outputs(self) -> dict[str, str]:
        """SHA-256 of every file that a finished stage wrote (or the one under way), by its path in the folder."""
        if self.manifest["schema"] == 1:
            return self.manifest.get("outputs", {})
        found: dict[str, str] = {}
        for entry in self.manifest["stages"].values():
            found |= entry.get("outputs", {}) if entry.get("status") == "success" else {}
        return found | (self._record.outputs if self._record else {})

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file in the folder as it is now, by its path in it (the manifest, log and lock apart)."""
        return {name: sha256_file(self.folder / name) for name in files_of(self.folder)}

    def checked(self, name: str) -> Path:
        """Return the path of a file or folder of the run that is as it was written, for reading.

        While a stage is under way, what it reads is noted as made by others.

        Args:
            name: path in the run's folder, such as "tables/tax.csv" or "probes".

        Raises:
            CheckError: a file was changed, is missing or is not of this run, or the stage that wrote it is out of date.
        """
        listed = self.outputs
        inside = [one for one in files_of_one(self.folder, name) if one not in listed]
        wanted = [one for one in listed if one == name or one.startswith(f"{name}/")]
        own = self._record.outputs if self._record else {}
        wrong = [(one, "not in the manifest") for one in inside]
        for one in wanted:
            path = self.folder / one
            if one not in own and (not path.is_file() or sha256_file(path) != listed[one]):
                wrong.append((one, "changed since it was written" if path.is_file() else "missing"))
        if wrong:
            fix = "taxlens run RUN --resume does the stage again; or copy the folder again"
            raise CheckError(explain(f"{self.folder} is not as it was written.", wrong[:8], fix))
        self._check_makers([one for one in wanted if one not in own])
        if self._record:
            self._record.inputs |= {one: listed[one] for one in wanted if one not in own}
        return self.folder / name

    def _check_makers(self, names: list[str]) -> None:
        for stage, entry in self.manifest["stages"].items():
            if any(name in entry.get("outputs", {}) for name in names) and (why := outdated(self, stage)):
                rows = [("folder", self.folder), ("stage", stage), ("found", why)]
                raise CheckError(explain("a stage is out of date.", rows, f"taxlens {stage} {self.folder}"))

    def write(self, table: Table, frame: pd.DataFrame) -> Path:
        """Write a table [rows, columns] as `tables/NAME.csv`, header always, and return its path.

        Raises:
            CheckError: the frame's columns, types or keys are not those of the table.
        """
        frame, name = table.check(frame), f"tables/{table.name}.csv"
        if self._record is not None:
            return write_table(frame, self.folder / name)
        with nullcontext() if self.held else self._lock():
            path = write_table(frame, self.folder / name)
            entry = self.manifest["stages"].setdefault(BY_HAND, {"status": "success", "started": now(), "outputs": {}})
            entry["outputs"][name] = sha256_file(path)
            self.save()
        return path

    def read(self, table: Table) -> pd.DataFrame:
        """Return a table [rows, columns] with the types that it declares, if it is as it was written.

        Raises:
            UsageError: if the run has no such table (it lists those it has).
            CheckError: if it was changed, if the stage that wrote it is out of date, or if the file is not such a table.
        """
        one_of(table.name, self.tables, what=f"table of {self.folder}")
        return table.read(self.checked(f"tables/{table.name}.csv"))

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that finished stages wrote."""
        paths = map(Path, self.outputs)
        return tuple(sorted(p.stem for p in paths if p.parent.as_posix() == "tables" and p.suffix == ".csv"))

    def has(self, table: str) -> bool:
        """Whether a finished stage wrote the table."""
        return self.has_file(f"tables/{table}.csv")

    def has_file(self, name: str) -> bool:
        """Whether a finished stage wrote the file, named by its path in the folder."""
        return name in self.outputs

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name, as `read` does; one that no stage declares is read as it stands.

        Raises:
            UsageError: if the run has no such table (it lists those it has).
            CheckError: if the file is not such a table.
        """
        return self.read(TABLES.get(name) or Table(name, "", {}))

    def verify(self) -> list[str]:
        """Return what is not as a finished run should be (empty: all is): see `taxlens.runs.verification`."""
        return problems(self)

    def check(self) -> None:
        """Raise if the run is unfinished, or anything in it is not as it was written.

        Raises:
            CheckError: naming everything that differs.
        """
        wrong = self.verify()
        if wrong:
            raise CheckError(explain(f"{self.folder} is not as it was written.", [("found", row) for row in wrong]))

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    def __repr__(self) -> str:
        return f"Run({self.config.name!r}, {self.manifest['status']}, {len(self.tables)} tables, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        stages = ", ".join(f"{name} {info['status']}" for name, info in self.manifest["stages"].items())
        rows = "".join(f"<li>{html.escape(name)}.csv</li>" for name in self.tables)
        return f"<p><code>{html.escape(repr(self))}</code></p><p>{html.escape(stages)}</p><ul>{rows}</ul>"


def files_of_one(folder: Path, name: str) -> list[str]:
    """The files of a run under one path, whether the manifest lists them or not."""
    path = folder / name
    return [f"{name}/{inside}" for inside in files_of(path)] if path.is_dir() else [name] * path.is_file()
