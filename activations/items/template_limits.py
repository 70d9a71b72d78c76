"""A chat template is a program that a stranger wrote: it gets a time, a memory, and no more."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxlens.core.errors import ModelLoadError

try:
    import resource
except ImportError:  # a system without it: time is bounded, memory is not
    resource = None

SECONDS = 5.0
"""Longest time that one rendering may take."""
MEMORY = 1 << 30
"""Most bytes that it may take beyond what the process holds."""


class TemplateLimitError(ModelLoadError):
    """A template was stopped; the text says by which limit."""

    def __init__(self, reason: str = f"it runs longer than {SECONDS:g} s") -> None:
        super().__init__(f"the chat template was stopped: {reason}.")


@contextmanager
def bounded(*, seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Stop what runs inside the block when it takes too long or too much memory.

    Args:
        seconds: longest time.
        memory: most bytes beyond what the process holds now.

    Raises:
        TemplateLimitError: it was stopped.
    """
    limits = _less_memory(memory)
    watchdog = _Watchdog(seconds)
    try:
        yield
    except (MemoryError, RecursionError, OverflowError) as error:
        said = "it needs too much memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        raise TemplateLimitError(said[:200]) from None
    finally:
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        watchdog.end()


class _Watchdog:
    """Raises an error in the thread that made it, when that thread has computed for too long.

    Processor seconds count where the system tells them: a process that waits for its turn is not a slow template.
    """

    def __init__(self, seconds: float) -> None:
        self._thread, self._lock = threading.get_ident(), threading.Lock()
        self._over = self._fired = False
        self._seconds, self._start = seconds, _computed(self._thread)
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        with self._lock:
            if self._over:
                return
            left = self._seconds - (_computed(self._thread) - self._start)
            if left > 0:
                self._wait(max(left, 0.01))
                return
            self._fired = True
            thread, kind = ctypes.c_ulong(self._thread), ctypes.py_object(TemplateLimitError)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, kind)

    def end(self) -> None:
        """Stop watching; an error that is on its way arrives before this returns."""
        fired = self._fired
        with self._lock:
            self._over = True
        self._timer.cancel()
        if self._fired and not fired:
            for _ in range(100):
                time.sleep(0.001)


def _computed(thread: int) -> float:
    """Processor seconds of a thread of this process; seconds of the clock where the system does not tell."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return time.monotonic()


def _less_memory(memory: int) -> tuple[int, int] | None:
    """Lower the limit of the process's address space to what it has now and `memory` more; return the limits before."""
    try:
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        before = resource.getrlimit(resource.RLIMIT_AS)
        wanted = held + memory
        if before[0] != resource.RLIM_INFINITY and before[0] <= wanted:
            return None
        resource.setrlimit(resource.RLIMIT_AS, (wanted, before[1]))
    except (OSError, ValueError, AttributeError):
        return None
    return before
