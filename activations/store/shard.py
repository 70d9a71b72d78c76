"""One file of a store: written whole, hashed, and read only where its hashes hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xxhash

from taxlens.activations.store.direct_io import PAGE, write_at
from taxlens.core.errors import StoreError, explain

FORMAT = "taxlens activations"
VERSION = 1
BLOCK_ROWS = 256
MOST_ROWS_BYTES = 1 << 32
"""Most bytes of one column of a row index."""
MODELS = ("base", "aligned")
STORED = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}


class ShardFile:
    """A shard being written: its rows first, then each model's arrays, then `close`.

    Args:
        path: temporary path; the caller renames it when `close` has returned.
        frame: the shard's part of the row index.
        dtype: "float32", "float16" or "bfloat16".
        layers: the layers of every array, in order.
        compress: gzip level 1 with shuffle; None for plain contiguous arrays.
    """

    def __init__(
        self,
        path: Path,
        frame: pd.DataFrame,
        *,
        dtype: str,
        layers: Sequence[int],
        compress: str | None = None,
    ) -> None:
        self.path, self._dtype, self._layers, self._compress = path, dtype, layers, compress
        self._file = h5py.File(path, "w", alignment_threshold=16 * PAGE, alignment_interval=PAGE)
        attributes = {"format": FORMAT, "format_version": VERSION, "n_rows": len(frame)}
        self._file.attrs.update(attributes | {"block_rows": BLOCK_ROWS})
        write_rows(self._file, frame)

    def write(self, model: str, site: str, data: np.ndarray) -> None:
        """Write one model's activations at one site: [layer, row, ...] in the stored dtype."""
        if self._compress:
            chunk = (1, min(BLOCK_ROWS, data.shape[1]), *data.shape[2:])
            options = {"chunks": chunk, "compression": "gzip", "compression_opts": 1, "shuffle": True}
            made = self._file.create_dataset(f"{model}/{site}", data=data, **options)
        else:
            made = self._file.create_dataset(f"{model}/{site}", data.shape, data.dtype, dcpl=_allocated())
            write_at(self.path, made.id.get_offset(), np.ascontiguousarray(data))
        made.attrs["dtype"] = self._dtype
        made.attrs["layers"] = np.asarray(self._layers, dtype=np.int64)
        self._file.create_dataset(f"checksums/{model}/{site}", data=block_hashes(data))

    def close(self) -> dict[str, Any]:
        """Flush and close the file; return what the manifest keeps of it: size, array extents, header hash."""
        self._file.flush()
        found, placed = extents(self._file), places(self._file)
        self._file.close()
        with open(self.path, "rb") as stream:
            header = header_sha256(stream.fileno(), found)
        size = self.path.stat().st_size
        return {"bytes": size, "extents": found, "places": placed, "header_sha256": header}

    def abandon(self) -> None:
        """Close the file without finishing it, and remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _allocated() -> h5py.h5p.PropDCID:
    """Return how an array is made whose bytes are written beside HDF5: its place is fixed at once, and not filled."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return plan


def write_rows(file: h5py.File, frame: pd.DataFrame) -> None:
    """Write the row index: one dataset a column, text as fixed-length UTF-8, numbers as they are."""
    group = file.create_group("rows", track_order=True)
    group.attrs["columns"] = [quote(column) for column in frame.columns]
    for column in frame.columns:
        values = frame[column].to_numpy()
        if values.dtype.kind not in "fi":
            values = text_array(["" if value is None or value != value else str(value) for value in values])
        group.create_dataset(quote(column), data=values)


def text_array(values: Sequence[str]) -> np.ndarray:
    """Return texts as a fixed-length array that HDF5 marks as UTF-8 [n]."""
    raw = [value.encode("utf-8") for value in values]
    width = max((len(value) for value in raw), default=0) or 1
    return np.array(raw, dtype=h5py.string_dtype("utf-8", width))


def read_rows(file: h5py.File) -> pd.DataFrame:
    """Return the row index of a shard or a view; empty texts of labels are missing (None)."""
    group = file["rows"]
    frame = {}
    for name in group.attrs["columns"]:
        data = own_dataset(file, f"rows/{name}")
        column = unquote(name)
        if data.ndim != 1 or data.chunks is not None or data.nbytes > MOST_ROWS_BYTES:
            raise ValueError(f"column {column!r}: {data.shape} in {data.nbytes} bytes")
        if data.dtype.kind in "fi":
            frame[column] = data[...]
            continue
        texts = np.char.decode(data[...].astype(data.dtype.str), "utf-8").astype(object)
        if column.startswith("label."):
            texts = np.array([text or None for text in texts], dtype=object)
        frame[column] = pd.Series(texts, dtype=object)
    return pd.DataFrame(frame)


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in this very file.

    HDF5 can let a dataset be a window on any other file of the system: by external storage, by links, by virtual layout.

    Raises:
        StoreError: it is such a window, or no dataset.
    """
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if not isinstance(file.get(path, getlink=True), h5py.HardLink):
            raise _damaged(Path(file.filename), f"{path} is a link or missing", "a store holds its own data")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise _damaged(Path(file.filename), f"{name} lies in another file", "a store holds its own data")
    return data


def join_rows(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the row indices of several shards as one, missing texts as None."""
    joined = pd.concat(list(frames), ignore_index=True)
    for column in joined.columns:
        if joined[column].dtype == object:
            joined[column] = joined[column].where(joined[column].notna(), None)
    return joined


def quote(column: str) -> str:
    """Return a column's name as an HDF5 name: "%" and "/" percent-encoded."""
    return column.replace("%", "%25").replace("/", "%2F")


def unquote(name: str) -> str:
    """Undo `quote`."""
    return name.replace("%2F", "/").replace("%25", "%")


def block_hashes(data: np.ndarray) -> np.ndarray:
    """Return XXH3-64 of the bytes of every block of `BLOCK_ROWS` rows of [layer, row, ...]: uint64 [layer, block]."""
    starts = range(0, data.shape[1], BLOCK_ROWS)
    return np.array(
        [[xxhash.xxh3_64_intdigest(np.ascontiguousarray(plane[s : s + BLOCK_ROWS])) for s in starts] for plane in data],
        dtype=np.uint64,
    ).reshape(data.shape[0], len(starts))


def extents(file: h5py.File) -> list[list[int]]:
    """Return [offset, bytes] of every run of array data in the file; everything else is its header."""
    found: list[tuple[int, int]] = []
    for model in MODELS:
        for data in (file.get(model) or {}).values():
            if data.chunks is None:
                found.append((data.id.get_offset(), data.id.get_storage_size()))
                continue
            chunks = (data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks()))
            found += [(chunk.byte_offset, chunk.size) for chunk in chunks]
    merged: list[list[int]] = []
    for offset, size in sorted(found):
        if merged and merged[-1][0] + merged[-1][1] == offset:
            merged[-1][1] += size
        else:
            merged.append([offset, size])
    return merged


def places(file: h5py.File) -> dict[str, list[int]]:
    """Return, for every plain array "MODEL/SITE", [offset of its data, offset of its block hashes] in the file."""
    found = {}
    for model in MODELS:
        for site, data in (file.get(model) or {}).items():
            if data.chunks is None:
                found[f"{model}/{site}"] = [data.id.get_offset(), file[f"checksums/{model}/{site}"].id.get_offset()]
    return found


def header_sha256(handle: int, data: Sequence[Sequence[int]]) -> str:
    """Return SHA-256 of every byte of an open file outside its array data: structure, row index and block hashes."""
    digest = hashlib.sha256()
    end = os.fstat(handle).st_size
    position = 0
    for offset, size in [*data, [end, 0]]:
        while position < offset:
            part = os.pread(handle, min(offset - position, 1 << 20), position)
            if not part:
                break  # the file ends inside an array: its size is another
            digest.update(part)
            position += len(part)
        position = offset + size
    return digest.hexdigest()


class Shard:
    """A finished shard, opened only if its size and header are as the manifest says.

    Args:
        path: the file.
        entry: its entry in the manifest.

    Raises:
        StoreError: if the file is missing, truncated or changed outside its arrays.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self.path, self.entry = path, entry
        self._handle = open_checked(path, entry)
        self._hashes: dict[str, np.ndarray] = {}
        self._data: dict[str, h5py.Dataset] = {}

    @cached_property
    def file(self) -> h5py.File:
        """The HDF5 file, opened when something is asked of it that the manifest does not place."""
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise _damaged(self.path, "HDF5 cannot open it", str(error)) from error

    def rows(self) -> pd.DataFrame:
        """Return the shard's part of the row index."""
        try:
            frame = read_rows(self.file)
        except (KeyError, ValueError, TypeError, OSError, MemoryError, AttributeError, RuntimeError) as error:
            raise _damaged(self.path, "its row index cannot be read", str(error)) from error
        if len(frame) != self.entry["rows"]:
            raise _damaged(self.path, "its row index has another length", f"{len(frame)}, written {self.entry['rows']}")
        return frame

    def read(self, model: str, site: str, layer: int, start: int, out: np.ndarray) -> None:
        """Fill `out` [row, ...] with rows from `start` of one (model, site), `layer` counted among the stored ones.

        Every block that the rows touch is hashed before any of it is handed on.

        Raises:
            StoreError: if a block cannot be read, or its hash differs.
        """
        known = self._known(f"{model}/{site}", layer)
        stop = start + len(out)
        for at in range(start - start % BLOCK_ROWS, stop, BLOCK_ROWS):
            end = min(at + BLOCK_ROWS, self.entry["rows"])
            inside = start <= at and end <= stop
            block = out[at - start : end - start] if inside else np.empty((end - at, *out.shape[1:]), out.dtype)
            self._block(f"{model}/{site}", layer, at, block)
            if xxhash.xxh3_64_intdigest(block) != int(known[at // BLOCK_ROWS]):
                where = f"{model}/{site}, stored layer {layer}, rows {at} to {end}"
                raise _damaged(self.path, "bytes differ from their checksum", where)
            if not inside:
                low, high = max(at, start), min(end, stop)
                out[low - start : high - start] = block[low - at : high - at]

    def _block(self, name: str, layer: int, at: int, block: np.ndarray) -> None:
        """Read one block; a plain array's bytes lie in the file as they are, where the manifest says."""
        placed = self.entry.get("places", {}).get(name)
        try:
            if placed is None:
                if name not in self._data:
                    self._data[name] = own_dataset(self.file, name)
                self._data[name].read_direct(block, np.s_[layer, at : at + len(block)])
                return
            row = block.nbytes // len(block)
            offset = placed[0] + (layer * self.entry["rows"] + at) * row
            got = os.preadv(self._handle, [block.reshape(-1).view(np.uint8)], offset)
        except (OSError, KeyError) as error:
            raise _damaged(self.path, f"{name} cannot be read", str(error)) from error
        if got != block.nbytes:
            raise _damaged(self.path, f"{name} ends too early", f"{got} bytes of {block.nbytes}")

    def _known(self, name: str, layer: int) -> np.ndarray:
        """The block hashes of one layer of one array: part of the header, which was checked when the file was opened."""
        placed = self.entry.get("places", {}).get(name)
        if placed is not None:
            blocks = -(-self.entry["rows"] // BLOCK_ROWS)
            raw = os.pread(self._handle, 8 * blocks, placed[1] + 8 * blocks * layer)
            if len(raw) != 8 * blocks:
                raise _damaged(self.path, f"the checksums of {name} end too early", f"{len(raw)} bytes of {8 * blocks}")
            return np.frombuffer(raw, dtype="<u8")
        if name not in self._hashes:
            self._hashes[name] = own_dataset(self.file, f"checksums/{name}")[...]
        return self._hashes[name][layer]

    def close(self) -> None:
        """Close the file."""
        if "file" in self.__dict__:
            self.file.close()
        os.close(self._handle)


def open_checked(path: Path, entry: Mapping[str, Any]) -> int:
    """Open a shard for reading, and return its descriptor, if its size and header are as the manifest says.

    Raises:
        StoreError: naming the file and what differs in size, structure, row index or block hashes.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _damaged(path, "the file is missing", "listed in the manifest") from error
    except OSError as error:
        raise _damaged(path, "the file cannot be opened", error.strerror or str(error)) from error
    try:
        size = os.fstat(handle).st_size
        if size != entry["bytes"]:
            raise _damaged(path, "the file has another size", f"{size} bytes, written {entry['bytes']}")
        found = header_sha256(handle, entry["extents"])
        if found != entry["header_sha256"]:
            raise _damaged(
                path, "its header has changed", f"sha256 {found[:12]}, written {entry['header_sha256'][:12]}"
            )
    except BaseException:
        os.close(handle)
        raise
    return handle


def check_header(path: Path, entry: Mapping[str, Any]) -> None:
    """Refuse a shard whose size, structure, row index or block hashes are not as the manifest says.

    Raises:
        StoreError: naming the file and what differs.
    """
    os.close(open_checked(path, entry))


def _damaged(path: Path, what: str, detail: str) -> StoreError:
    rows = [("shard", path), ("found", what), ("detail", (detail.splitlines() or [""])[0])]
    fix = "delete this shard and capture again with --resume, or copy the store again."
    return StoreError(explain("a shard of the store is damaged.", rows, fix))
