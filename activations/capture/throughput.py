"""How far a capture is: items a second, bytes on disk, time left."""

from __future__ import annotations

import time

from taxlens.activations.capture.request import Request
from taxlens.core.progress import Task


class Throughput:
    """Tells a progress how far a capture is, batch after batch.

    An item counts when both models have read all of its sequences; what a shard loses when memory runs out is read again
    and counts once.

    Args:
        task: shows it; its total is the number of items.
        request: what is captured.
    """

    def __init__(self, task: Task, request: Request) -> None:
        self._task = task
        self._per_item = 2 * len(request.plan.readings) / request.plan.n_items
        self._total = 2 * len(request.plan.readings)
        self._done = self._open = self._resumed = self._told = 0
        self._start = time.monotonic()
        self.written = 0

    def resume(self, readings: int, size: int) -> None:
        """Count sequences that an earlier process captured with both models, and their bytes."""
        self._done += 2 * readings
        self._resumed += 2 * readings
        self.written += size
        self._tell()

    def read(self, sequences: int) -> None:
        """Count sequences of one batch that one model has read."""
        self._open += sequences
        self._tell()

    def keep(self) -> None:
        """The open shard is captured."""
        self._done, self._open = self._done + self._open, 0

    def drop(self) -> None:
        """The open shard will be read again."""
        self._open = 0

    def wrote(self, size: int) -> None:
        """Count the bytes of a shard that is on disk (from the thread that writes; the next batch tells it)."""
        self.written += size

    def close(self) -> None:
        """Everything is on disk."""
        self._tell()

    def _tell(self) -> None:
        now = self._done + self._open
        rate = (now - self._resumed) / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - now) / rate / 60 if rate > 0 else float("nan")
        items = int(now / self._per_item + 1e-9)
        more, self._told = max(items - self._told, 0), max(items, self._told)
        note = f"{rate / self._per_item:.1f} items/s, {self.written / 1e9:.2f} GB written, {left:.1f} min left"
        self._task.advance(more, note=note if rate > 0 else "resumed")
