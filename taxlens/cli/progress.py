"""Progress on standard error: bars in a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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


class _Lines(Task):
    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done, self._started = 0.0, time.monotonic()
        self._last = self._started

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        self._done += amount
        moment = time.monotonic()
        if moment - self._last >= EVERY_SECONDS:
            self._last = moment
            of = f"/{self._total:g}" if self._total else ""
            print(
                f"{self._name}: {self._done:g}{of} {self._unit} after {moment - self._started:.0f} s {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )


class LineProgress(Progress):
    """One line per 30 seconds, for logs."""

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Print a line now and then for a task of `total` units."""
        yield _Lines(name, total, unit)


def terminal_progress() -> Progress:
    """Return bars if standard error is a terminal, lines otherwise."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress()
