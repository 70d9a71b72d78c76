"""Progress in a notebook: a bar a task under the cell that runs, gone when the task is done; silent anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taxlens.core.progress import SILENT, Progress, Task


class _Bar(Task):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=amount == 0)
        self._bar.update(amount)


class NotebookProgress(Progress):
    """Bars of text by tqdm, which need no widgets."""

    @contextmanager
    def task(self, name: str, *, total: float | None = None, unit: str = "items") -> Iterator[Task]:
        """Show a bar for a task of `total` units until the block is left."""
        from tqdm.std import tqdm

        with tqdm(
            total=total, desc=name, unit=f" {unit}", leave=False, file=sys.stderr, ncols=100, mininterval=0.3
        ) as bar:
            yield _Bar(bar)


def face_progress() -> Progress:
    """Return bars where the code runs in the kernel of a notebook, and silence elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return NotebookProgress() if shell is not None and type(shell).__name__ == "ZMQInteractiveShell" else SILENT
