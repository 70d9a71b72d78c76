"""Memory that this process holds, and the most that it held since the last reset; read from Linux' /proc."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path


def held_bytes() -> int:
    """Return the bytes of memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most bytes that this process held since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew at what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def give_back() -> None:
    """Give memory that is no longer used back to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
