"""What a store holds, in a page; and whether it still holds what was written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.activations.store.manifest import locate, read_manifest
from taxlens.activations.store.shard import BLOCK_ROWS, MODELS, STORED, Shard
from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import StoreError, explain


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a store holds.

    Args:
        path: its folder.
        complete: whether everything that was asked for is there.
        rows, shards, bytes: sizes.
        dtype: how activations are stored.
        sites: site -> shape of one row.
        layers: the layers of every site.
        base, aligned: the two models.
        suites: rows by (suite, template, kind).
        checks: number of passed self-checks.
        coverage: (suite, template, lowest, mean, items): share of content in common tokens, for chat.
        items: (first, stop, of all) if the store is a part of a capture, else None.
    """

    path: str
    complete: bool
    rows: int
    shards: int
    bytes: int
    dtype: str
    sites: dict[str, list[int]]
    layers: tuple[int, ...]
    base: str
    aligned: str
    suites: tuple[tuple[str, str, str, int], ...]
    checks: int
    coverage: tuple[tuple[str, str, float, float, int], ...]
    items: tuple[int, int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        state = "complete" if self.complete else "UNFINISHED"
        lines = [
            f"store      {self.path} ({state})",
            f"rows       {self.rows} in {self.shards} shards, {self.bytes / 1e6:.1f} MB, {self.dtype}",
            *(["part       items {} to {} of {}".format(*self.items)] if self.items else []),
            f"base       {self.base}",
            f"aligned    {self.aligned}",
            f"layers     {_runs(self.layers)}",
            *(f"site       {site} {shape}" for site, shape in self.sites.items()),
            *(f"rows of    {suite} / {template} / {kind}: {n}" for suite, template, kind, n in self.suites),
            *(f"coverage   {s} / {t}: mean {mean:.1%}, lowest {low:.1%}" for s, t, low, mean, _ in self.coverage),
            f"checks     {self.checks} self-checks passed before the first byte",
        ]
        return "\n".join(lines)


def inspect(path: Path | str) -> Inspection:
    """Return what a store holds, finished or not, reading its manifest and row index only.

    Raises:
        StoreError: if there is no store, or what is read of it is damaged.
    """
    folder, _ = locate(path)
    manifest = read_manifest(folder)
    counts: dict[tuple[str, str, str], int] = {}
    for entry in manifest["shards"]:
        shard = Shard(folder / entry["file"], entry)
        try:
            sizes = shard.rows().groupby(["suite", "template", "kind"], sort=False).size()
        finally:
            shard.close()
        for key, n in sizes.items():
            counts[key] = counts.get(key, 0) + int(n)
    try:
        return _inspected(folder, manifest, counts)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        rows = [("store", folder), ("reason", f"{type(error).__name__}: {error}")]
        raise StoreError(explain("the store's manifest is no manifest of a store.", rows)) from error


def _inspected(folder: Path, manifest: dict[str, Any], counts: dict[tuple[str, str, str], int]) -> Inspection:
    identity = manifest["identity"]
    pair, span = identity["pair"], identity["items"]
    total = sum(suite["items"] for suite in identity["suites"])
    return Inspection(
        path=str(folder),
        complete=manifest["complete"],
        rows=sum(entry["rows"] for entry in manifest["shards"]),
        shards=len(manifest["shards"]),
        bytes=sum(entry["bytes"] for entry in manifest["shards"]),
        dtype=manifest["dtype"],
        sites=manifest["sites"],
        layers=tuple(manifest["layers"]),
        base=f"{manifest['sources']['base']} (sha256 {pair['base']['weights'][:12]})",
        aligned=f"{manifest['sources']['aligned']} (sha256 {pair['aligned']['weights'][:12]})",
        suites=tuple((*key, n) for key, n in counts.items()),
        checks=len(manifest["self_check"]),
        coverage=tuple((s, t, low, mean, n) for s, t, low, mean, n in manifest["coverage"]),
        items=(span[0], span[1], total) if span else None,
    )


def verify(path: Path | str) -> Inspection:
    """Recompute every checksum of a store, and return what it holds.

    Raises:
        StoreError: listing every damaged part.
    """
    folder, view = locate(path)
    manifest = read_manifest(folder)
    problems: list[tuple[str, str]] = []
    for entry in manifest["shards"]:
        try:
            _verify_shard(folder, entry, manifest)
        except StoreError as error:
            problems.append((entry["file"], "; ".join(str(error).splitlines()[2:4]).replace("  ", " ").strip()))
    if manifest["complete"]:
        if not view.is_file():
            problems.append((view.name, "the view is missing"))
        elif sha256_file(view) != manifest["view_sha256"]:
            problems.append((view.name, "the view has changed"))
    else:
        problems.append(("manifest.json", f"unfinished: {len(manifest['shards'])} of {manifest['n_shards']} shards"))
    if problems:
        rows = [("store", folder), *problems]
        fix = "delete the damaged shards and capture again with --resume, or copy the store again."
        raise StoreError(explain("the store is not as it was written.", rows, fix))
    return inspect(path)


def _verify_shard(folder: Path, entry: dict[str, Any], manifest: dict[str, Any]) -> None:
    shard, dtype = Shard(folder / entry["file"], entry), STORED[manifest["dtype"]]
    try:
        for model in MODELS:
            for site, shape in manifest["sites"].items():
                for layer in range(len(manifest["layers"])):
                    for start in range(0, entry["rows"], BLOCK_ROWS):
                        block = np.empty((min(BLOCK_ROWS, entry["rows"] - start), *shape), dtype=dtype)
                        shard.read(model, site, layer, start, block)
    finally:
        shard.close()


def _runs(layers: tuple[int, ...]) -> str:
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
