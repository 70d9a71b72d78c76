"""The run's log: one JSON object a line, for the time a run is under way, each session's lines sealed in the manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


@contextmanager
def logged_to(path: Path | str) -> Iterator[None]:
    """Append what taxlens logs at level info and above to `path` until the block is left."""
    with open(path, "ab") as stream:
        if stream.tell() and not _ends_a_line(Path(path)):
            stream.write(b"\n")  # a process was killed inside a line
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("taxlens")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.flush()
        os.fsync(handler.stream.fileno())
        handler.close()


def session(path: Path, start: int) -> dict[str, Any]:
    """Return what the manifest keeps of the log's bytes from `start` on: where they stand, how many, their SHA-256."""
    with open(path, "rb") as stream:
        stream.seek(start)
        data = stream.read()
    return {"start": start, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def log_problems(path: Path, sessions: Sequence[dict[str, Any]]) -> list[str]:
    """Return what differs between a log and the sessions that the manifest keeps of it (empty: nothing)."""
    data = path.read_bytes() if path.is_file() else b""
    problems, end = [], 0
    for number, kept in enumerate(sessions, start=1):
        part = data[kept["start"] : kept["start"] + kept["bytes"]]
        if kept["start"] != end or hashlib.sha256(part).hexdigest() != kept["sha256"]:
            problems.append(f"changed: {path.name} (session {number} of {len(sessions)})")
        end = kept["start"] + kept["bytes"]
    if len(data) > end:
        problems.append(f"not in the manifest: {len(data) - end} bytes at the end of {path.name}")
    return problems


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
