"""Both models' activations, labelled and paired, to disk: checked first, resumable, the same bytes every time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from taxlens.activations.capture.collect import fill, new_buffers, shaped
from taxlens.activations.capture.request import Request, resolve
from taxlens.activations.capture.throughput import Throughput
from taxlens.activations.capture.writer import Writer
from taxlens.activations.hooks.selfcheck import self_check
from taxlens.activations.items.items import Suite
from taxlens.activations.items.out_of_memory import give_back_memory, memory_ran_out
from taxlens.activations.models.pair import ModelPair
from taxlens.activations.store.disk import written
from taxlens.activations.store.lock import sole_writer
from taxlens.activations.store.manifest import NAME, differences, locate, read_manifest, write_manifest
from taxlens.activations.store.shard import FORMAT, VERSION, check_header
from taxlens.activations.store.store import Store
from taxlens.activations.store.virtual_dataset import write_view
from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import StoreError, UsageError, explain
from taxlens.core.progress import SILENT, Progress


def capture(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    to: Path | str,
    resume: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Store:
    """Capture both models' activations on the same items to an HDF5 store, and return it open.

    Before a byte is written, a self-check proves on a few rows that what is read is what the models compute. The
    backbones run without their output heads, up to the last layer asked for, and only the rows asked for leave
    the device.

    Args:
        pair: the two models.
        suites: what they read.
        to: `NAME.h5` (a view, shards beside it in `NAME.shards/`), or a folder.
        resume: go on with an unfinished store; a finished one is returned as it is.
        progress: shows items, items a second, bytes written and time left.
        options: what is captured and how it is stored; see `taxlens.activations.capture.request.CaptureOptions`.

    Returns:
        The finished store.

    Raises:
        UsageError: if the request makes no sense, or the store exists and `resume` is not set.
        StoreError: if the disk is too small or fails, another process writes there, or the store is of another request.
        CheckError: if a self-check fails, or an activation is NaN, infinite, or too large for float16.

    Example:
        >>> store = capture(pair, suite, to="acts.h5")          # doctest: +SKIP
    """
    request = resolve(pair, suites, **options)
    folder, view = locate(to)
    _check_target(folder, resume)
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        _complete(pair, request, folder, view, resume, progress)
    return Store.open(folder)


def _complete(pair: ModelPair, request: Request, folder: Path, view: Path, resume: bool, progress: Progress) -> None:
    for leftover in (*folder.glob(".*.tmp"), *view.parent.glob(f".{view.name}.*.tmp")):
        leftover.unlink()
    manifest = _start(pair, request, folder, resume)
    if manifest["complete"] and not (view.is_file() and sha256_file(view) == manifest["view_sha256"]):
        manifest["complete"] = False  # the shards are whole, what shows them as one file is not
    if not manifest["complete"]:
        done = sum(entry["bytes"] for entry in manifest["shards"])
        check_free(folder, int(request.total_bytes * 1.02) + (1 << 20) - done)
        _write_shards(pair, request, folder, manifest, progress)
        with written(view):
            manifest["view_sha256"] = write_view(folder, view, manifest)
            manifest["complete"] = True
            write_manifest(folder, manifest)


def check_free(folder: Path, wanted: int) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        folder: where it will be written.
        wanted: bytes.

    Raises:
        StoreError: with bytes wanted and free.
    """
    free = shutil.disk_usage(folder).free
    if wanted > free:
        rows = [("folder", folder), ("needs", _size(wanted)), ("free", _size(free))]
        fix = "positions: last, fewer layers or sites, dtype: bfloat16, or another disk."
        raise StoreError(explain("the disk cannot hold this capture.", rows, fix))


def _size(count: int) -> str:
    """Bytes in the unit that shows them, such as "12.3 MB"."""
    power = min(max(len(str(max(count, 1))) - 1, 0) // 3, 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _check_target(folder: Path, resume: bool) -> None:
    if (folder / NAME).is_file() and not resume:
        rows = [("store", folder)]
        raise UsageError(explain("a store is here already.", rows, "resume it (--resume), or choose another path."))
    if folder.exists() and not folder.is_dir():
        rows = [("path", folder), ("found", "a file")]
        raise UsageError(explain("a store cannot be written here.", rows, "choose another path."))


def _start(pair: ModelPair, request: Request, folder: Path, resume: bool) -> dict[str, Any]:
    """Return the manifest to go on with: the store's own, or a new one after the self-check."""
    if resume and (folder / NAME).is_file():
        manifest = read_manifest(folder)
        if changed := differences(request.identity, manifest["identity"]):
            rows = [("store", folder), *changed]
            fix = "capture to another path, or go back to what the store was begun with."
            raise StoreError(explain("this store was begun with another request or other weights.", rows, fix))
        planned = _planned(request)
        kept = [
            e
            for e in manifest["shards"]
            if (e["first_row"], e["rows"]) == planned.get(e["index"]) and _intact(folder, e)
        ]
        if len(kept) < len(manifest["shards"]):
            manifest |= {"shards": kept, "complete": False}
        return manifest
    checks = [
        check.to_json()
        for name, loaded in pair.models()
        for check in self_check(loaded, request.check_rows(name), request.asked, model=name)
    ]
    manifest = {
        "format": FORMAT,
        "format_version": VERSION,
        "complete": False,
        "identity": request.identity,
        "sources": {name: loaded.source for name, loaded in pair.models()},
        "report": list(pair.report.notes),
        "self_check": checks,
        "coverage": [list(row) for row in request.plan.coverage],
        "rows": request.plan.n_rows,
        "sites": {site: list(shape) for site, shape in request.sites.items()},
        "layers": list(request.layers),
        "dtype": request.dtype,
        "n_shards": len(request.shards()),
        "shards": [],
        "view_sha256": "",
    }
    with written(folder / NAME):
        write_manifest(folder, manifest)
    return manifest


def _planned(request: Request) -> dict[int, tuple[int, int]]:
    """Index of every shard of a request -> (its first row, its rows)."""
    starts = request.plan.first_row
    spans = enumerate(request.shards())
    return {index: (int(starts[first]), int(starts[stop] - starts[first])) for index, (first, stop) in spans}


def _intact(folder: Path, entry: dict[str, Any]) -> bool:
    try:
        check_header(folder / entry["file"], entry)
    except StoreError:
        return False
    return True


def _write_shards(
    pair: ModelPair, request: Request, folder: Path, manifest: dict[str, Any], progress: Progress
) -> None:
    spans, starts = request.shards(), request.plan.first_row
    done = {entry["index"] for entry in manifest["shards"]}
    largest = max(int(starts[stop] - starts[first]) for first, stop in spans)
    budget = min([request.batch_tokens, *(entry["batch_tokens"] for entry in manifest["shards"])])
    writer = Writer(request, [new_buffers(request, largest) for _ in range(2)])
    try:
        with progress.task("capture", total=request.plan.n_items, unit="items") as task:
            meter = Throughput(task, request)
            if done:
                kept = sum(stop - first for index, (first, stop) in enumerate(spans) if index in done)
                meter.resume(kept, sum(entry["bytes"] for entry in manifest["shards"]))
            for index, span in enumerate(spans):
                if index not in done:
                    budget = _one_shard(pair, request, writer, folder, manifest, index, span, budget, meter)
            writer.close()
            meter.close()
    except BaseException:
        writer.cancel()
        raise


def _one_shard(
    pair: ModelPair,
    request: Request,
    writer: Writer,
    folder: Path,
    manifest: dict[str, Any],
    index: int,
    span: tuple[int, int],
    budget: int,
    meter: Throughput,
) -> int:
    """Capture one shard of both models with one token budget, halved until it fits; return the budget."""
    first, stop = (int(request.plan.first_row[i]) for i in span)
    path = folder / f"shard-{index:05d}.h5"
    while True:
        writer.begin(path, slice(first, stop))
        try:
            for name, loaded in pair.models():
                flat = writer.buffer()
                arrays = shaped(flat, request, stop - first)
                try:
                    fill(loaded, request, model=name, span=span, budget=budget, buffers=arrays, told=meter.read)
                except BaseException:
                    writer.release(flat)
                    raise
                writer.part(name, flat, arrays, first)
            break
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            budget = _halved(error, budget)
            writer.abandon()
            meter.drop()
        give_back_memory()  # after the except block, whose error holds the failed pass's tensors
    meter.keep()

    def done(entry: dict[str, Any]) -> None:
        entry |= {"index": index, "file": path.name, "first_row": first, "rows": stop - first, "batch_tokens": budget}
        manifest["shards"] = sorted([*manifest["shards"], entry], key=lambda e: e["index"])
        write_manifest(folder, manifest)
        meter.wrote(entry["bytes"])

    writer.commit(path, done)
    return budget


def _halved(error: BaseException, budget: int) -> int:
    """Return half the token budget if the error says that memory ran out, else raise it again."""
    if not memory_ran_out(error):
        raise error
    text = str(error).lower()
    if budget < 2:
        rows = [("batch", "one sequence"), ("reason", text.splitlines()[0][:200])]
        fix = "a smaller dtype for the model, shorter items, or device: cpu."
        raise StoreError(explain("memory runs out with a single sequence.", rows, fix)) from error
    return budget // 2
