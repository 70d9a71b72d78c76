"""Progress as an argument: silent unless the caller passes something that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Task:
    """One piece of work under way. The silent one does nothing; others override `advance`."""

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        """Say that `amount` more units are done, with a short note (rate, current closure)."""


class Progress:
    """A silent progress. Subclasses (rich bars, tqdm, log lines) override `task`."""

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Open a task of `total` units and close it on leaving the block."""
        yield Task()

    @contextmanager
    def stage(self, name: str, *, number: int = 1, of: int = 1) -> Iterator[None]:
        """Say that a stage of a run is under way until the block is left; the silent one does nothing."""
        yield


class Named(Progress):
    """A progress whose tasks say what they are about, such as the suite, the model and the prompt.

    Args:
        inner: what shows them.
        words: put behind each task's name.
    """

    def __init__(self, inner: Progress, words: str) -> None:
        self._inner, self._words = inner, words

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Open the inner task under a name that says what it is about."""
        with self._inner.task(f"{name} {self._words}", total=total, unit=unit) as task:
            yield task


SILENT = Progress()
