"""Progress on standard error: bars in a terminal, a line at least every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars

from taxlens.core.progress import Progress, Task

EVERY_SECONDS = 30.0


class _Bar(Task):
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)


class BarProgress(Progress):
    """Rich bars on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Show a bar for a task of `total` units until the block is left."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichBars(*columns, console=self._console, transient=True) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, note=""))

    @contextmanager
    def stage(self, name: str, *, number: int = 1, of: int = 1) -> Iterator[None]:
        """Leave a line with a stage's time on the screen when it has ended."""
        started = time.monotonic()
        yield
        self._console.print(f"{name:<12} {time.monotonic() - started:.0f} s", highlight=False)


class _Lines(Task):
    """A task under way: how far it is, told by the lines that `LineProgress` prints."""

    def __init__(self, owner: LineProgress, name: str, total: float | None, unit: str) -> None:
        self._owner, self._name, self._total, self._unit = owner, name, total, unit
        self._done, self._note, self._started = 0.0, "", owner.now()

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        self._owner.beat()

    def __str__(self) -> str:
        of = f"/{self._total:g}" if self._total else ""
        spent = self._owner.now() - self._started
        return f"{self._name}: {self._done:g}{of} {self._unit} after {spent:.0f} s {self._note}".rstrip()


class LineProgress(Progress):
    """A line at least every 30 seconds, for logs: from a thread, so that long work between two steps is not silent.

    Args:
        stream: where the lines go (default: standard error).
        clock: seconds, rising.
        every: seconds between two lines.
        tick: seconds between two looks at the clock; 0: no thread, `beat` is called by hand.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY_SECONDS,
        tick: float = 1.0,
    ) -> None:
        self._stream, self.now, self._every, self._tick = stream, clock, every, tick
        self._open: list[object] = []
        self._lock, self._last, self._stop = threading.Lock(), clock(), threading.Event()

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Print a line now and then for a task of `total` units."""
        task = _Lines(self, name, total, unit)
        with self._while_open(task):
            yield task

    @contextmanager
    def stage(self, name: str, *, number: int = 1, of: int = 1) -> Iterator[None]:
        """Print that a stage begins, a line now and then while it is under way, and how long it took."""
        started = self.now()
        place = f" ({number} of {of})" if of > 1 else ""
        self._print(f"stage {name}{place}")
        with self._while_open(_Stage(self, name)):
            yield
        self._print(f"stage {name} done after {self.now() - started:.0f} s")

    def beat(self) -> None:
        """Print what is under way if the last line is old."""
        with self._lock:
            due = self._open and self.now() - self._last >= self._every
            said = str(self._open[-1]) if due else ""
            if due:
                self._last = self.now()
        if due:
            print(said, file=self._stream or sys.stderr, flush=True)

    def _print(self, words: str) -> None:
        with self._lock:
            self._last = self.now()
        print(words, file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def _while_open(self, thing: object) -> Iterator[None]:
        with self._lock:
            first = not self._open
            self._open.append(thing)
            self._last = self.now() if first else self._last
        if first and self._tick:
            self._stop = threading.Event()
            threading.Thread(target=self._watch, args=(self._stop,), name="progress", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(thing)
                last = not self._open
            if last:
                self._stop.set()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(self._tick):
            self.beat()


class _Stage:
    """A stage under way without a task of its own."""

    def __init__(self, owner: LineProgress, name: str) -> None:
        self._owner, self._name, self._started = owner, name, owner.now()

    def __str__(self) -> str:
        return f"stage {self._name}: under way for {self._owner.now() - self._started:.0f} s"


def terminal_progress() -> Progress:
    """Return bars if standard error is a terminal, lines otherwise."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress()
