"""The run folder: created once, locked while in use, every output hashed, readable as a notebook object."""

from __future__ import annotations

import fcntl
import html
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from taxlens.config.schema import Config, build_config
from taxlens.core.artifacts import sha256_file, write_json, write_table
from taxlens.core.errors import CheckError, UsageError, explain, one_of
from taxlens.core.table import Table
from taxlens.runs.manifest import SCHEMA, new_manifest, now
from taxlens.stages import TABLES

logger = logging.getLogger(__name__)
NOT_HASHED = {"run.json", "log.jsonl", ".lock"}


def new_folder(folder: Path | str) -> Path:
    """Return the path of a run folder to make: links and ".." followed first, then checked to be absent or empty.

    Raises:
        UsageError: if something is there already, or the path is a link to nothing.
    """
    folder = Path(folder)
    real = folder.resolve()
    if folder.is_symlink() and not real.exists():
        rows = [("folder", folder), ("leads to", real)]
        raise UsageError(explain("the run folder is a link to nothing.", rows, "another --out, or remove the link"))
    if real.exists() and (not real.is_dir() or any(real.iterdir())):
        rows = [("folder", folder), *([("that is", real)] if ".." in folder.parts else [])]
        fix = "another --out, or --resume to go on with it"
        raise UsageError(explain("the run folder exists already.", rows, fix))
    return real if ".." in folder.parts else folder


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path, links followed, lies inside a folder."""
    return path.resolve().is_relative_to(folder.resolve())


class Run:
    """A run folder: its config, its manifest, its tables and figures.

    Example:
        >>> run = Run.open("runs/demo")            # doctest: +SKIP
        >>> run.table("attribution").head()        # doctest: +SKIP
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.config: Config = build_config(manifest["config"]["resolved"])
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
        run.save()
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open an existing run folder.

        Raises:
            UsageError: if there is no readable `run.json` of a known schema in it.
        """
        path = Path(folder) / "run.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            rows = [("folder", folder), ("reason", error)]
            raise UsageError(explain("not a run folder.", rows, "the folder that `taxlens run` printed")) from error
        if schema != SCHEMA:
            rows = [("folder", folder), ("schema", schema), ("known", SCHEMA)]
            raise UsageError(explain("the run was written by another version.", rows))
        return cls(Path(folder), manifest)

    def emptied(self, name: str) -> Path:
        """Return a folder of the run without the files that an earlier pass left there by the manifest; others stay."""
        for path in self.manifest["outputs"]:
            inside = self.folder / path
            if path.startswith(f"{name}/") and inside.is_file() and is_within(inside, self.folder):
                inside.unlink()
        return self.folder / name

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.manifest, self.folder / "run.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            UsageError: if another process holds it.
        """
        with open(self.folder / ".lock", "w", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                rows = [("folder", self.folder)]
                raise UsageError(explain("another process works in this run folder.", rows, "wait for it")) from error
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record that a stage started, how it ended and how long it took."""
        started = time.perf_counter()
        self.manifest["stages"][name] = {"status": "started", "started": now()}
        self.save()
        logger.info("stage %s started", name)
        try:
            yield
        except BaseException as error:
            status = "cancelled" if isinstance(error, KeyboardInterrupt) else "error"
            self.manifest["stages"][name]["status"] = status
            raise
        self.manifest["stages"][name] |= {
            "status": "success",
            "seconds": round(time.perf_counter() - started, 2),
        }
        self.save()
        logger.info("stage %s done", name)

    def done(self, stage: str) -> bool:
        """Whether a stage has ended well in this folder."""
        return self.manifest["stages"].get(stage, {}).get("status") == "success"

    def finish(self, status: str, *, error: str | None = None) -> None:
        """Close the manifest with `success`, `error` or `cancelled` and the hash of every output."""
        self.manifest |= {"status": status, "finished": now(), "error": error, "outputs": self.hashes()}
        self.save()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file in the folder, by its path in it (the manifest, log and lock apart)."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file() and not p.name.endswith(".tmp"))
        names = {p.relative_to(self.folder).as_posix(): p for p in files}
        return {name: sha256_file(path) for name, path in names.items() if path.name not in NOT_HASHED}

    def write(self, table: Table, frame: pd.DataFrame) -> Path:
        """Write a table [rows, columns] as `tables/NAME.csv`, header always, and return its path.

        Raises:
            CheckError: the frame's columns, types or keys are not those of the table.
        """
        return write_table(table.check(frame), self.folder / "tables" / f"{table.name}.csv")

    def read(self, table: Table) -> pd.DataFrame:
        """Return a table [rows, columns] with the types that it declares.

        Raises:
            UsageError: if the run has no such table (it lists those it has).
            CheckError: if the file is not such a table.
        """
        one_of(table.name, self.tables, what=f"table of {self.folder}")
        return table.read(self.folder / "tables" / f"{table.name}.csv")

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables in the folder."""
        return tuple(sorted(p.stem for p in (self.folder / "tables").glob("*.csv")))

    def has(self, table: str) -> bool:
        """Whether the table is there."""
        return (self.folder / "tables" / f"{table}.csv").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name, as `read` does; one that no stage declares is read as it stands.

        Raises:
            UsageError: if the run has no such table (it lists those it has).
            CheckError: if the file is not such a table.
        """
        return self.read(TABLES.get(name) or Table(name, "", {}))

    def verify(self) -> list[str]:
        """Return what differs from the manifest: changed, missing and unknown files (empty: all is as written)."""
        recorded, found = self.manifest["outputs"], self.hashes()
        changed = [f"changed: {name}" for name in recorded if name in found and found[name] != recorded[name]]
        missing = [f"missing: {name}" for name in recorded if name not in found]
        return changed + missing + [f"not in the manifest: {name}" for name in found if name not in recorded]

    def check(self) -> None:
        """Raise if any output is not as the manifest says.

        Raises:
            CheckError: naming every file that differs.
        """
        wrong = self.verify()
        if wrong:
            raise CheckError(explain(f"{self.folder} is not as it was written.", [("file", row) for row in wrong]))

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    def __repr__(self) -> str:
        return f"Run({self.config.name!r}, {self.manifest['status']}, {len(self.tables)} tables, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        stages = ", ".join(f"{name} {info['status']}" for name, info in self.manifest["stages"].items())
        rows = "".join(f"<li>{html.escape(name)}.csv</li>" for name in self.tables)
        return f"<p><code>{html.escape(repr(self))}</code></p><p>{html.escape(stages)}</p><ul>{rows}</ul>"
