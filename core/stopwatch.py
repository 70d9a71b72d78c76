"""A progress that also notes how long each step took, and passes everything on to another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from taxlens.core.progress import SILENT, Progress, Task


class _Timed(Task):
    def __init__(self, inner: Task, steps: list[tuple[float, float]]) -> None:
        self._inner, self._steps, self._last = inner, steps, time.perf_counter()

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        moment = time.perf_counter()
        self._steps.append((amount, moment - self._last))
        self._last = moment
        self._inner.advance(amount, note=note)


class Stopwatch(Progress):
    """Wall time of every step that a function tells its progress.

    Args:
        inner: the progress to pass everything on to.

    Example:
        >>> watch = Stopwatch()
        >>> with watch.task("work", total=3) as task:
        ...     task.advance(3)
        >>> watch.steps[:, 0].tolist()
        [3.0]
    """

    def __init__(self, inner: Progress = SILENT) -> None:
        self._inner = inner
        self._steps: list[tuple[float, float]] = []

    @property
    def steps(self) -> np.ndarray:
        """[steps, 2]: units done in the step, and its seconds."""
        return np.array(self._steps, dtype=np.float64).reshape(-1, 2)

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Open a task whose steps are timed."""
        with self._inner.task(name, total=total, unit=unit) as inner:
            yield _Timed(inner, self._steps)
