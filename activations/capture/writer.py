"""A thread that writes shards while the models run: bounded, in order, and loud when it fails."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.activations.capture.request import Request
from taxlens.activations.store.disk import disk_error
from taxlens.activations.store.shard import ShardFile
from taxlens.core.artifacts import finished, fsync_folder
from taxlens.core.errors import CheckError, StoreError, explain

Job = Callable[[], None]


class Writer:
    """Runs jobs in order in one thread; its queue and its two buffers bound the memory of a capture.

    Args:
        request: what is captured.
        buffers: flat memory, each for one model's part of a shard.
    """

    def __init__(self, request: Request, buffers: list[dict[str, torch.Tensor]]) -> None:
        self._request = request
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=4)
        self._free: queue.Queue[dict[str, torch.Tensor]] = queue.Queue()
        for flat in buffers:
            self._free.put(flat)
        self._error: BaseException | None = None
        self._shard: ShardFile | None = None
        self._path: Path | str = "a shard"
        self._thread = threading.Thread(target=self._work, name="taxlens-writer", daemon=True)
        self._thread.start()

    def buffer(self) -> dict[str, torch.Tensor]:
        """Wait for a free buffer.

        Raises:
            TaxlensError: what stopped the writer, if it has stopped.
        """
        while True:
            self.check()
            try:
                return self._free.get(timeout=0.1)
            except queue.Empty:
                continue

    def release(self, flat: dict[str, torch.Tensor]) -> None:
        """Give a buffer back unused."""
        self._free.put(flat)

    def begin(self, path: Path, rows: slice) -> None:
        """Start a shard in a temporary file beside `path`."""
        self._put(lambda: self._begin(path, rows))

    def part(self, model: str, flat: dict[str, torch.Tensor], arrays: dict[str, torch.Tensor], first: int) -> None:
        """Write one model's arrays, site -> [layer, row, ...], and free the buffer."""
        self._put(lambda: self._part(model, flat, arrays, first))

    def commit(self, path: Path, done: Callable[[dict[str, Any]], None]) -> None:
        """Finish the shard: flush, fsync, rename; then call `done` with what the manifest keeps."""
        self._put(lambda: self._commit(path, done))

    def abandon(self) -> None:
        """Drop the open shard."""
        self._put(self._abandon)

    def check(self) -> None:
        """Raise what stopped the writer, if it has stopped."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait until everything is written, stop, and raise what went wrong if anything did."""
        self._jobs.put(None)
        self._thread.join()
        self.check()

    def cancel(self) -> None:
        """Stop without finishing the open shard; never raises."""
        self._jobs.put(None)
        self._thread.join()
        if self._shard is not None:
            self._abandon()

    def _put(self, job: Job) -> None:
        self.check()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is not None:
                continue
            try:
                job()
            except OSError as error:
                self._error = disk_error(self._shard.path if self._shard else self._path, error)
            except BaseException as error:
                self._error = error

    def _begin(self, path: Path, rows: slice) -> None:
        self._path = path
        self._shard = ShardFile(
            temporary(path),
            self._request.plan.frame.iloc[rows],
            dtype=self._request.dtype,
            layers=self._request.layers,
            compress=self._request.compress,
        )

    def _part(self, model: str, flat: dict[str, torch.Tensor], arrays: dict[str, torch.Tensor], first: int) -> None:
        shard = _open(self._shard)
        for site, values in arrays.items():
            for layer, plane in zip(self._request.layers, values, strict=True):
                check_values(plane, model, f"{site}.{layer}", self._request, first)
            shard.write(model, site, as_stored(values))
        self._free.put(flat)

    def _commit(self, path: Path, done: Callable[[dict[str, Any]], None]) -> None:
        shard = _open(self._shard)
        entry = shard.close()
        with open(shard.path, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(shard.path, path)
        fsync_folder(path.parent)
        finished(path)
        self._shard = None
        done(entry)

    def _abandon(self) -> None:
        if self._shard is not None:
            self._shard.abandon()
            self._shard = None


def temporary(path: Path) -> Path:
    """Return the name a shard has while it is written."""
    return path.with_name(f".{path.name}.tmp")


def as_stored(values: torch.Tensor) -> Any:
    """Return a tensor as the array that is written: bfloat16 as its bits in uint16."""
    if values.dtype == torch.bfloat16:
        return values.view(torch.uint16).numpy()
    return values.numpy()


def check_values(plane: torch.Tensor, model: str, address: str, request: Request, first: int) -> None:
    """Refuse NaN and infinity among the rows [row, ...] of one address.

    Raises:
        CheckError: naming model, address, item and remedy.
    """
    if all_finite(as_stored(plane), request.dtype):
        return
    finite = torch.isfinite(plane).flatten(1).all(1)
    if bool(finite.all()):
        return
    row = int((~finite).nonzero()[0])
    record = request.plan.frame.iloc[first + row]
    bad = plane[row][~torch.isfinite(plane[row])]
    overflow = request.dtype == "float16" and bool(torch.isinf(bad).all())
    rows = [
        ("model", model),
        ("address", address),
        ("first", f"{record['suite']}/{record['item']} ({record['kind']}, {record['template']})"),
        ("rows", f"{int((~finite).sum())} of {len(plane)}"),
    ]
    if overflow:
        fix = "dtype: float32, or bfloat16 (float16 ends at 65,504)."
        raise CheckError(explain("an activation does not fit float16.", rows, fix))
    fix = "load the model with dtype: float32; if it stays, the checkpoint itself is broken."
    raise CheckError(explain("activations are NaN or infinite.", rows, fix))


def all_finite(stored: np.ndarray, dtype: str) -> bool:
    """Whether every value is finite (False: look closer); numpy works in this thread, and leaves torch's threads to the model."""
    if dtype == "float32":
        with np.errstate(all="ignore"):
            return bool(np.isfinite(np.add.reduce(stored, axis=None)))  # a NaN or an infinity comes through the sum
    exponent = np.uint16(0x7F80 if dtype == "bfloat16" else 0x7C00)
    return not bool(((stored.view(np.uint16) & exponent) == exponent).any())


def _open(shard: ShardFile | None) -> ShardFile:
    if shard is None:
        raise StoreError(explain("no shard is open.", [("writer", "out of order")]))
    return shard
