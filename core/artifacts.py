"""Files that are finished or absent: atomic writing that lasts through a power cut, checksums, canonical tables."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from taxlens.core.errors import UsageError, explain

_HOST = re.sub(r"[^\w-]", "_", socket.gethostname())[:40] or "host"
_TEMPORARY = re.compile(r"\..+\.(?P<host>[\w-]+)@(?P<process>\d+)\.tmp")
_OLDER_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # as version 0.1 named them
_watchers: list[Callable[[Path, str | None], None]] = []


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8 as 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value: equal values have equal hashes, whatever the order of their keys."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=False))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it, on error remove it.

    When the block is left, the file and its name last through a power cut: the bytes are on the disk before the
    name is, and the folder is flushed after it. The file's mode follows the umask.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("done")
        >>> target.read_text()
        'done'
    """
    path = Path(path)
    _told(path, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    mode = _new_mode(temporary)
    try:
        yield temporary
        _flush(temporary, mode)
        digest = sha256_file(temporary) if _watchers else ""
        os.replace(temporary, path)
        fsync_folder(path.parent)
        _told(path, digest)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_directory(out: Path | str) -> Iterator[Path]:
    """Yield a directory beside `out` that becomes `out` when the block succeeds and vanishes when it fails.

    Every file in it is on the disk before the directory gets its name, with a mode that follows the umask.

    Raises:
        UsageError: something of this name exists already, a link to nothing included.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        there = "a link to nothing" if out.is_symlink() and not out.exists() else "a folder or file"
        rows = [("folder", out), ("found", there)]
        raise UsageError(explain("the output folder exists already.", rows, "another --out."))
    folder = temporary_name(out)
    folder.mkdir(parents=True)
    try:
        yield folder
        mode = _new_mode(folder / ".mode")
        (folder / ".mode").unlink()
        for inside in sorted(folder.rglob("*"), reverse=True):
            fsync_folder(inside) if inside.is_dir() else _flush(inside, mode)
        fsync_folder(folder)
        os.rename(folder, out)
        fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def temporary_name(path: Path) -> Path:
    """Return the name that a file has while this process writes it: with host and process, so that others know whose it is."""
    return path.with_name(f".{path.name}.{_HOST}@{os.getpid()}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a path's name is one that unfinished files have."""
    return bool(_TEMPORARY.fullmatch(path.name) or _OLDER_TEMPORARY.fullmatch(path.name))


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the unfinished files that processes of this machine left in a folder, and return their paths.

    The caller holds the folder's lock: no process of this machine writes there. Files of other machines stay.
    """
    removed = []
    for path in sorted(folder.rglob(".*.tmp")):
        whose = _TEMPORARY.fullmatch(path.name)
        mine = whose["host"] == _HOST if whose else bool(_OLDER_TEMPORARY.fullmatch(path.name))
        if mine and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def watched(watcher: Callable[[Path, str | None], None]) -> Iterator[None]:
    """Call `watcher(path, None)` before this process writes a file, and `watcher(path, sha256)` when it is finished.

    Files are told that are written by `atomic_path`, in any thread, until the block is left.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def finished(path: Path) -> None:
    """Tell the watchers of a file that was put in place by other means than `atomic_path`."""
    if _watchers:
        _told(path, sha256_file(path))


def write_table(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a table [rows, columns] as canonical CSV (12 significant digits, "\\n") and return its path."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.12g", lineterminator="\n", encoding="utf-8")
    return Path(path)


def write_json(value: Any, path: Path | str) -> Path:
    """Write a JSON value with sorted keys and an ending newline, atomically, and return its path."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def _told(path: Path, digest: str | None) -> None:
    for watcher in list(_watchers):
        watcher(path, digest)


def _new_mode(path: Path) -> int:
    """Make an empty file, and return the mode that the umask gave it (some libraries make private files)."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def _flush(path: Path, mode: int) -> None:
    os.chmod(path, mode)
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())
