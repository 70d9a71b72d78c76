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


SILENT = Progress()
