"""Parts of one capture, made anywhere, put together as one store."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.activations.capture.capture import check_free
from taxlens.activations.store.disk import written
from taxlens.activations.store.inspection import verify
from taxlens.activations.store.lock import sole_writer
from taxlens.activations.store.manifest import NAME, differences, locate, read_manifest, write_manifest
from taxlens.activations.store.store import Store
from taxlens.activations.store.virtual_dataset import write_view
from taxlens.core.artifacts import atomic_path, finished, fsync_folder
from taxlens.core.errors import StoreError, UsageError, explain


def merge(parts: Sequence[Path | str], *, to: Path | str, whole: bool = False) -> Store:
    """Put parts of one capture together, and return the store open.

    A part is a store captured with `items=(first, stop)`. Parts share everything else (pair, suites, sites, dtype,
    seed ...), and their ranges must join without gap or overlap. Shards are linked where the file system can, else
    copied; every checksum is recomputed first.

    Args:
        parts: stores, in any order.
        to: as `capture`.
        whole: refuse unless the parts are all of a capture.

    Raises:
        UsageError: if nothing is given, or `to` holds a store.
        StoreError: if a part is damaged or unfinished, parts differ in their request, or ranges do not join.

    Example:
        >>> merge(["part-0.h5", "part-1.h5"], to="whole.h5")          # doctest: +SKIP
    """
    if not parts:
        raise UsageError(explain("no parts to merge.", [("parts", 0)]))
    folder, view = locate(to)
    if (folder / NAME).is_file():
        raise UsageError(explain("a store is here already.", [("store", folder)], "choose another path."))
    found = sorted((_part(path) for path in parts), key=lambda part: part[1]["identity"]["items"])
    for (_, one), (_, two) in itertools.pairwise(found):
        _check_join(one, two)
    if whole:
        _check_whole(found[0][1], found[-1][1])
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder), written(view):
        manifest = _joined([manifest for _, manifest in found])
        shards: list[dict[str, Any]] = []
        first = 0
        for source, part in found:
            for entry in part["shards"]:
                name = f"shard-{len(shards):05d}.h5"
                _link(source / entry["file"], folder / name)
                shards.append({**entry, "index": len(shards), "file": name, "first_row": first})
                first += entry["rows"]
        fsync_folder(folder)
        manifest |= {"rows": first, "n_shards": len(shards), "shards": shards}
        manifest["view_sha256"] = write_view(folder, view, manifest)
        manifest["complete"] = True
        write_manifest(folder, manifest)
    return Store.open(folder)


def _part(path: Path | str) -> tuple[Path, dict[str, Any]]:
    verify(path)
    folder, _ = locate(path)
    manifest = read_manifest(folder)
    if manifest["identity"]["items"] is None:
        rows = [("store", folder), ("items", "all")]
        raise StoreError(explain("this store is not a part: it holds all items.", rows, "merge stores of item ranges."))
    return folder, manifest


def _check_join(one: dict[str, Any], two: dict[str, Any]) -> None:
    bare = [{k: v for k, v in m["identity"].items() if k != "items"} for m in (one, two)]
    if changed := differences(*bare):
        fix = "capture all parts with one config, one pair and one software."
        raise StoreError(explain("two parts were captured with different requests.", changed, fix))
    stop, start = one["identity"]["items"][1], two["identity"]["items"][0]
    if stop != start:
        rows = [("one part ends", stop), ("the next begins", start)]
        raise StoreError(
            explain("the parts' items do not join.", rows, "capture what is missing, merge each item once.")
        )


def _check_whole(first: dict[str, Any], last: dict[str, Any]) -> None:
    start, stop = first["identity"]["items"][0], last["identity"]["items"][1]
    total = sum(suite["items"] for suite in first["identity"]["suites"])
    if (start, stop) != (0, total):
        rows = [("items", f"{start} to {stop}"), ("the capture has", f"0 to {total}")]
        raise StoreError(explain("parts of the capture are missing.", rows, "give every part, 1/N to N/N."))


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = parts[0], parts[-1]
    span = [first["identity"]["items"][0], last["identity"]["items"][1]]
    total = sum(suite["items"] for suite in first["identity"]["suites"])
    identity = {**first["identity"], "items": None if span == [0, total] else span}
    notes = list(dict.fromkeys(note for part in parts for note in part["report"]))
    checks = [check for part in parts for check in part["self_check"]]
    return {
        **first,
        "complete": False,
        "identity": identity,
        "report": notes,
        "self_check": checks,
        "coverage": _coverage(parts),
    }


def _coverage(parts: list[dict[str, Any]]) -> list[list[Any]]:
    """Lowest and mean coverage over parts; each mean weighs as its number of items (recorded as the fifth value)."""
    seen: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for part in parts:
        for suite, template, low, mean, items in part["coverage"]:
            seen.setdefault((suite, template), []).append((low, mean, items))
    out = []
    for (suite, template), found in seen.items():
        items = sum(n for _, _, n in found)
        out.append([suite, template, min(low for low, _, _ in found), sum(m * n for _, m, n in found) / items, items])
    return out


def _link(source: Path, target: Path) -> None:
    """Put a shard in place under another name: linked where the file system can, else copied, whole or not at all."""
    target.unlink(missing_ok=True)  # of a merge that was killed
    try:
        os.link(source, target)
        finished(target)
    except OSError:
        check_free(target.parent, source.stat().st_size)
        with atomic_path(target) as copy:
            shutil.copyfile(source, copy)
