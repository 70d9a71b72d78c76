"""What a capture will cost, before it starts: bytes, minutes, memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taxlens.activations.capture.collect import fill, new_buffers, shaped
from taxlens.activations.capture.request import Request, resolve
from taxlens.activations.items.items import Suite
from taxlens.activations.models.loading import DTYPES, LoadedModel
from taxlens.activations.models.pair import ModelPair

PROBE_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a capture will cost.

    Args:
        rows, tokens, shards: how much there is; tokens of both models together.
        bytes: of the finished store.
        disk_free: bytes free where it will be written.
        minutes: from the speed of a few real batches on this machine, as it is loaded now.
        memory_bytes: above the models: two shard buffers and one batch's activations.
    """

    rows: int
    tokens: int
    shards: int
    bytes: int
    disk_free: int
    minutes: float
    memory_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the disk can hold the store."""
        return self.bytes <= self.disk_free

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows} rows from {self.tokens} tokens: {self.bytes / 1e9:.3f} GB in {self.shards} shards "
            f"({self.disk_free / 1e9:.1f} GB free), about {self.minutes:.1f} minutes, "
            f"{self.memory_bytes / 1e9:.2f} GB of memory above the models"
        )


def estimate(pair: ModelPair, suites: Suite | Sequence[Suite], *, to: Path | str, **options: Any) -> Estimate:
    """Return what `capture` with the same arguments will cost, writing nothing.

    Both models run over the first rows (about a thousand tokens); the time of that is scaled to all tokens.

    Args:
        pair, suites, to: as `taxlens.activations.capture.capture.capture`.
        options: the other arguments of `capture` (`resume` and `progress` have no part in it).

    Raises:
        UsageError: as `capture`.
    """
    wanted = {key: value for key, value in options.items() if key not in ("resume", "progress")}
    begun = time.process_time()
    request = resolve(pair, suites, **wanted)
    planned = time.process_time() - begun
    parent = Path(to).absolute()
    while not parent.exists():
        parent = parent.parent
    spans, starts = request.shards(), request.plan.first_row
    largest = max(int(starts[stop] - starts[first]) for first, stop in spans)
    buffers = 2 * request.row_bytes * largest
    return Estimate(
        rows=request.plan.n_rows,
        tokens=request.plan.tokens,
        shards=len(spans),
        bytes=int(request.total_bytes * 1.02) + (1 << 20),
        disk_free=shutil.disk_usage(parent).free,
        minutes=(planned + sum(_seconds(request, name, loaded) for name, loaded in pair.models())) / 60,
        memory_bytes=buffers + _batch_bytes(request, pair.base),
    )


def _seconds(request: Request, model: str, loaded: LoadedModel) -> float:
    """Seconds for all tokens of one model, from a timed start."""
    rows = [getattr(reading, model) for reading in request.plan.readings]
    count, tokens = 0, 0
    while count < len(rows) and (count == 0 or tokens < PROBE_TOKENS):
        tokens += len(rows[count].ids)
        count += 1
    flat = new_buffers(request, int(request.plan.first_row[count]))
    buffers = shaped(flat, request, int(request.plan.first_row[count]))
    timed = []
    for _ in range(2):  # the first pass warms up
        start = time.perf_counter(), time.process_time()
        fill(loaded, request, model=model, span=(0, count), budget=request.batch_tokens, buffers=buffers)
        # where the machine is busy with other work, its waiting is not counted
        timed.append(min(time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(timed) * sum(len(row.ids) for row in rows) / tokens


def _batch_bytes(request: Request, loaded: LoadedModel) -> int:
    """Activations of one batch in one block: the stream, the feed-forward part, and attention's scores twice."""
    parts = loaded.anatomy
    longest = max(len(reading.base.ids) for reading in request.plan.readings)
    tokens = min(request.batch_tokens, request.plan.tokens)
    values = tokens * (6 * parts.d_model + 3 * parts.d_mlp + 2 * parts.n_heads * longest)
    return values * DTYPES[loaded.dtype].itemsize
