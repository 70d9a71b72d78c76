"""Plain values with arrays in one file: dicts, lists, tuples, texts, numbers and numpy arrays, and nothing that can run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.core.artifacts import atomic_path
from taxlens.core.errors import StoreError, UsageError, explain

_TREE = "tree"


def write_plain(path: Path, value: Any) -> None:
    """Write a plain value, whole or not at all.

    Args:
        path: the file (.npz).
        value: None, booleans, numbers, texts, numpy arrays of numbers or texts, and dicts, lists and tuples of these.

    Raises:
        UsageError: something else is in it; its type is named.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_told(value, arrays)).encode("utf-8")
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays, **{_TREE: np.frombuffer(tree, dtype=np.uint8)})


def read_plain(path: Path) -> Any:
    """Read what `write_plain` wrote.

    Raises:
        StoreError: the file is damaged or none of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _made(json.loads(file[_TREE].tobytes().decode("utf-8")), file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        rows = [("file", path), ("reason", error)]
        raise StoreError(explain("a kept result cannot be read.", rows, "delete it: it will be made again.")) from error


def _told(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, np.ndarray):
        held = value if value.dtype != object else np.array([str(one) for one in value.ravel()]).reshape(value.shape)
        arrays[f"a{len(arrays)}"] = held
        return {"array": f"a{len(arrays) - 1}", "object": value.dtype == object}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_told(one, arrays) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[_told(key, arrays), _told(one, arrays)] for key, one in value.items()]}
    rows = [("got", type(value).__name__)]
    raise UsageError(explain("a result must be of plain values and arrays.", rows, "turn it into a dict."))


def _made(told: Any, file: Any) -> Any:
    if not isinstance(told, dict):
        return told
    if "float" in told:
        return float.fromhex(told["float"])
    if "array" in told:
        array = file[told["array"]]
        return array.astype(object) if told["object"] else array
    if "list" in told:
        return [_made(one, file) for one in told["list"]]
    if "tuple" in told:
        return tuple(_made(one, file) for one in told["tuple"])
    return {_made(key, file): _made(one, file) for key, one in told["dict"]}
