"""A store's manifest: what was asked for, what is committed, and the checks that hold it together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxlens.activations.store.shard import FORMAT, MODELS, STORED, VERSION
from taxlens.core.artifacts import sha256_text, write_json
from taxlens.core.errors import StoreError, explain
from taxlens.core.json_text import parse_json

NAME = "manifest.json"


def locate(path: Path | str) -> tuple[Path, Path]:
    """Return (folder of shards, view file) of a store, from any of its names.

    A store written to `NAME.h5` keeps its shards in `NAME.shards/` beside it and `NAME.h5` is the view; one written
    to a folder keeps both in it. The folder, the view or the manifest all name the store.
    """
    path = Path(path)
    if path.name == NAME:
        path = path.parent
    if path.suffix == ".shards":
        return path, path.with_suffix(".h5")
    if path.suffix == ".h5" and path.name == "view.h5" and (path.parent / NAME).is_file():
        return path.parent, path
    if path.suffix == ".h5":
        return path.with_suffix(".shards"), path
    inside = path / "activations.shards"
    if not (path / NAME).is_file() and inside.is_dir():
        return inside, inside.with_suffix(".h5")
    return path, path / "view.h5"


def seal(manifest: Mapping[str, Any]) -> str:
    """Return the hash that a manifest carries of itself: of its JSON without the field `sha256`."""
    bare = {key: value for key, value in manifest.items() if key != "sha256"}
    return sha256_text(json.dumps(bare, sort_keys=True, ensure_ascii=False))


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with its own hash: atomically, after everything that it lists."""
    write_json({**manifest, "sha256": seal(manifest)}, folder / NAME)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a store's manifest.

    Raises:
        StoreError: if there is none, or it is damaged, or of a format that this version does not read.
    """
    path = folder / NAME
    if not path.is_file():
        found = "a folder without manifest.json" if folder.is_dir() else "nothing"
        rows = [("store", folder), ("found", found)]
        fix = "give the .h5 file or folder that taxlens capture wrote."
        raise StoreError(explain("no store here.", rows, fix))
    try:
        manifest = parse_json(path.read_bytes().decode("utf-8"))
        intact = isinstance(manifest, dict) and manifest.get("sha256") == seal(manifest)
    except (ValueError, OSError):
        intact, manifest = False, {}
    if not intact:
        rows = [("manifest", path), ("found", "its own checksum does not hold")]
        raise StoreError(explain("the store's manifest is damaged.", rows, "copy the store again."))
    if manifest.get("format") != FORMAT:
        rows = [("manifest", path), ("format", repr(manifest.get("format"))), ("expected", repr(FORMAT))]
        raise StoreError(explain("this is not a taxlens store.", rows))
    if manifest.get("format_version") not in range(1, VERSION + 1):
        rows = [("manifest", path), ("version", manifest.get("format_version")), ("read", f"1 to {VERSION}")]
        raise StoreError(explain("the store has a newer format.", rows, "install a newer taxlens."))
    if wrong := _misshapen(manifest):
        rows = [("manifest", path), ("found", wrong)]
        raise StoreError(explain("the store's manifest is no manifest of a store.", rows, "do not trust this store."))
    manifest["sites"] = {site: manifest["sites"][site] for site in manifest["identity"]["sites"]}  # JSON sorted them
    return manifest


_KINDS: dict[str, type | tuple[type, ...]] = {
    "complete": bool, "identity": dict, "sources": dict, "report": list, "self_check": list, "coverage": list, "rows": int,
    "sites": dict, "layers": list, "dtype": str, "n_shards": int, "shards": list, "view_sha256": str,
}  # fmt: skip
_ENTRY = {"file": str, "index": int, "first_row": int, "rows": int, "bytes": int, "extents": list, "header_sha256": str}
_PACKED = 1100
"""No byte of gzip holds more bytes than this."""


def _misshapen(manifest: Mapping[str, Any]) -> str:
    """What makes a sealed manifest one that no capture writes; empty if nothing does."""
    for key, kind in _KINDS.items():
        if not isinstance(manifest.get(key), kind):
            return f"{key}: {type(manifest.get(key)).__name__}"
    identity, sites, layers = manifest["identity"], manifest["sites"], manifest["layers"]
    if not all(
        isinstance(identity.get(key), kind) for key, kind in {"sites": list, "pair": dict, "suites": list}.items()
    ):
        return "identity: sites, pair or suites are missing"
    models = [part.get(name) for part in (manifest["sources"], identity["pair"]) for name in MODELS]
    if not all(isinstance(source, str) for source in models[:2]) or not all(
        isinstance(one, dict) and isinstance(one.get("weights"), str) for one in models[2:]
    ):
        return "sources or pair do not name two models"
    counts = [suite.get("items") if isinstance(suite, dict) else None for suite in identity["suites"]]
    if not all(map(_is_count, counts)) or not all(
        isinstance(row, list) and len(row) == 5 for row in manifest["coverage"]
    ):
        return "suites or coverage hold something else than counts"
    if set(identity["sites"]) != set(sites) or manifest["dtype"] not in STORED:
        return f"sites {', '.join(map(str, sites))}, dtype {manifest['dtype']}"
    widths = [shape for shape in sites.values() if isinstance(shape, list)]
    numbers = [*layers, *(size for shape in widths for size in shape)]
    if len(widths) < len(sites) or not all(_is_count(number) for number in numbers) or not layers:
        return "sites or layers hold something else than counts"
    a_row = sum(math.prod(shape) for shape in widths) * len(layers) * len(MODELS) * STORED[manifest["dtype"]].itemsize
    at = 0
    for number, entry in enumerate(manifest["shards"]):
        wrong = _misshapen_shard(entry, at, a_row) if manifest["complete"] else _misshapen_shard(entry, None, a_row)
        if wrong:
            return f"shard {number}: {wrong}"
        at += entry["rows"]
    if manifest["complete"] and at != manifest["rows"]:
        return f"rows: {manifest['rows']}, the shards hold {at}"
    return ""


def _misshapen_shard(entry: Any, first: int | None, a_row: int) -> str:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in _ENTRY.items()):
        return "a field is missing"
    if Path(entry["file"]).name != entry["file"]:
        return f"file {entry['file']!r} lies elsewhere"
    if not all(_is_count(entry[key]) for key in ("index", "first_row", "rows", "bytes")):
        return "a count is none"
    pairs = [*entry["extents"], *(places if isinstance(places := entry.get("places", {}), dict) else {"": 0}).values()]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_count, pair)) for pair in pairs):
        return "extents or places hold something else than two counts"
    if first is not None and entry["first_row"] != first:
        return f"first_row {entry['first_row']}, not {first}"
    most = entry["bytes"] if entry.get("places") else entry["bytes"] * _PACKED
    return f"{entry['rows']} rows do not fit {entry['bytes']} bytes" if entry["rows"] * a_row > most else ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def differences(given: Mapping[str, Any], kept: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what differs between two identities, as (dotted name, "now X, store Y") pairs."""
    found: list[tuple[str, str]] = []
    for key in sorted(given.keys() | kept.keys()):
        one, two = given.get(key), kept.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            found += [(f"{key}.{name}", text) for name, text in differences(one, two)]
        elif one != two:
            found.append((key, f"now {_short(one)}, store {_short(two)}"))
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
