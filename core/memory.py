"""How much memory there is, and a refusal in words where something needs more."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from taxlens.core.errors import UsageError, explain

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Return the bytes of host memory that this process may still take; None where the system does not say.

    The machine's available memory, within what the control group (a container, a batch job) has left.
    """
    found = [_meminfo(), *(_left(limit, used) for limit, used in _LIMITS)]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def refuse_beyond_memory(what: str, needed: float, fix: str, *, available: int | None = None) -> None:
    """Refuse what would not fit, before it starts.

    Args:
        what: what needs the memory.
        needed: bytes.
        fix: what would fit.
        available: bytes that there are; by default this process's own.

    Raises:
        UsageError: with what is needed, what there is, and what would fit.
    """
    there = available_memory() if available is None else available
    if there is not None and needed > there:
        rows = [("needs", f"{needed / 1e9:.1f} GB"), ("available", f"{there / 1e9:.1f} GB")]
        raise UsageError(explain(f"{what} does not fit into memory.", rows, fix))


def return_freed_memory() -> None:
    """Give back to the system what this process has freed; where the C library keeps it, peaks of one step add to the next's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _left(limit: str, used: str) -> int | None:
    try:
        return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
    except (OSError, ValueError):
        return None
