"""The pair store read back: rows, sites, layers, and activations as arrays, never a byte that fails its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from taxlens.activations.store.inspection import Inspection, inspect, verify
from taxlens.activations.store.manifest import locate, read_manifest
from taxlens.activations.store.shard import MODELS, STORED, Shard, join_rows
from taxlens.core.errors import StoreError, UsageError, explain, one_of

__all__ = ["Inspection", "Store", "inspect", "verify"]

Rows = slice | np.ndarray | list[int] | None


class Store:
    """Paired, labelled activations on disk, read lazily by site, layer, model and rows.

    Example:
        >>> with Store.open("runs/demo/activations.h5") as store:          # doctest: +SKIP
        ...     x = store.read("resid_post", 3, model="aligned")
    """

    def __init__(self, folder: Path, view: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.view, self.manifest = folder, view, manifest
        self._starts = np.array([entry["first_row"] for entry in manifest["shards"]], dtype=np.int64)
        self._open: dict[int, Shard] = {}

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store by its view (`NAME.h5`), its folder or its manifest.

        Raises:
            StoreError: if there is none, it is unfinished, or its manifest is damaged.
        """
        folder, view = locate(path)
        manifest = read_manifest(folder)
        if not manifest["complete"]:
            rows = [("store", folder), ("committed", f"{len(manifest['shards'])} of {manifest['n_shards']} shards")]
            raise StoreError(explain("the store is unfinished.", rows, "taxlens capture CONFIG --resume"))
        return cls(folder, view, manifest)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.manifest["rows"])

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites that the store holds."""
        return tuple(self.manifest["sites"])

    @property
    def dtype(self) -> str:
        """How activations are stored: "float32", "float16" or "bfloat16"."""
        return str(self.manifest["dtype"])

    def layers(self, site: str) -> tuple[int, ...]:
        """Return the layers held at a site, rising."""
        one_of(site, self.sites, what="site in this store")
        return tuple(self.manifest["layers"])

    def shape(self, site: str) -> tuple[int, ...]:
        """Return the shape of one row at a site: (d_model,), (n_heads, d_head) or (d_mlp,)."""
        one_of(site, self.sites, what="site in this store")
        return tuple(self.manifest["sites"][site])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The row index, 0 to n_rows - 1.

        Columns: suite, template, item, choice (-1: none), kind ("prompt", "gold", "foil", "text"), group, token
        (text), token_id, position and position_aligned (index of the token in each model's sequence; of the last
        one in a mean), correct (1 gold, 0 foil, NaN otherwise), and label.NAME for every label.
        """
        return join_rows([self._shard(number).rows() for number in range(len(self._starts))])

    def select(self, **wanted: object) -> np.ndarray:
        """Return the numbers of the rows whose columns hold the given values.

        Example:
            >>> store.select(suite="facts", kind="prompt")          # doctest: +SKIP
        """
        keep = np.ones(self.n_rows, dtype=bool)
        for column, value in wanted.items():
            one_of(column, list(self.rows.columns), what="column")
            keep &= (self.rows[column] == value).to_numpy()
        return np.flatnonzero(keep)

    def read(self, site: str, layer: int, *, model: str = "base", rows: Rows = None) -> np.ndarray:
        """Return activations of one model at one address, float32 [row, d_model] (or [row, head, d_head]).

        Args:
            site: which site.
            layer: which layer, as in the model.
            model: "base" or "aligned".
            rows: a slice or row numbers; None: all, in the store's order.

        Raises:
            StoreError: if a block that the rows touch does not match its checksum.
        """
        return widen(self.read_stored(site, layer, model=model, rows=rows), self.dtype)

    def read_stored(self, site: str, layer: int, *, model: str = "base", rows: Rows = None) -> np.ndarray:
        """Return what `read` returns, in the stored dtype; bfloat16 as its bits in uint16."""
        one_of(model, MODELS, what="model")
        at = self._layer(site, layer)
        if rows is None or isinstance(rows, slice):
            start, stop, step = (rows or slice(None)).indices(self.n_rows)
            if step == 1:
                return self._range(site, at, model, start, stop)
            rows = np.arange(start, stop, step)
        return self._scattered(site, at, model, np.asarray(rows))

    def blocks(
        self, site: str, layer: int, *, rows: Rows = None, size: int = 2048
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (base, aligned) activations, float32 [at most size, ...] each, over the rows in order.

        Args:
            site, layer: the address.
            rows: a slice or row numbers; None: all.
            size: rows a block.
        """
        chosen = np.arange(self.n_rows)[rows] if rows is None or isinstance(rows, slice) else np.asarray(rows)
        chosen = chosen.reshape(-1)
        whole = rows is None or (isinstance(rows, slice) and rows.step in (None, 1))
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            wanted = slice(int(part[0]), int(part[-1]) + 1) if whole else part
            yield (
                self.read(site, layer, model="base", rows=wanted),
                self.read(site, layer, model="aligned", rows=wanted),
            )

    def close(self) -> None:
        """Close every open shard."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        sites, layers = ", ".join(self.sites), len(self.manifest["layers"])
        return f"Store({self.n_rows} rows, {sites} at {layers} layers, both models, {self.dtype}, {self.folder})"

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            entry = self.manifest["shards"][number]
            self._open[number] = Shard(self.folder / entry["file"], entry)
        return self._open[number]

    def _layer(self, site: str, layer: int) -> int:
        held = self.layers(site)
        if layer not in held:
            rows = [("site", site), ("layer", layer), ("held", f"{held[0]} to {held[-1]} ({len(held)})")]
            raise UsageError(explain("the store does not hold this layer.", rows, "capture it, or choose another."))
        return held.index(layer)

    def _empty(self, site: str, rows: int) -> np.ndarray:
        return np.empty((rows, *self.shape(site)), dtype=STORED[self.dtype])

    def _range(self, site: str, layer: int, model: str, start: int, stop: int) -> np.ndarray:
        out = self._empty(site, max(stop - start, 0))
        for number, first in enumerate(self._starts.tolist()):
            low, high = max(start, first), min(stop, first + self.manifest["shards"][number]["rows"])
            if low < high:
                self._shard(number).read(model, site, layer, low - first, out[low - start : high - start])
        return out

    def _scattered(self, site: str, layer: int, model: str, rows: np.ndarray) -> np.ndarray:
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64).reshape(-1)
        if rows.size and not (-self.n_rows <= rows.min() and rows.max() < self.n_rows):
            got = [("got", f"{rows.min()} to {rows.max()}"), ("rows", self.n_rows)]
            raise UsageError(explain("row out of range.", got))
        rows = rows % max(self.n_rows, 1)
        out = self._empty(site, len(rows))
        where = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(where).tolist():
            mine = where == number
            local = rows[mine] - self._starts[number]
            low = int(local.min())
            part = self._empty(site, int(local.max()) + 1 - low)
            self._shard(number).read(model, site, layer, low, part)
            out[mine] = part[local - low]
        return out


def widen(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Return stored values as float32; exact for all three dtypes (bfloat16 is the upper half of a float32)."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)
