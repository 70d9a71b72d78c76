"""Plain values in one file: dicts, lists, texts, numbers, arrays, tensors, results of taxlens; nothing that can run."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.core.artifacts import atomic_path
from taxlens.core.errors import StoreError, UsageError, explain
from taxlens.core.lazy import Lazy

_TREE, _OWN = "tree", "taxlens."


def write_plain(path: Path, value: Any) -> None:
    """Write a plain value, whole or not at all.

    Args:
        path: the file (.npz).
        value: None, booleans, numbers, texts, arrays and tensors of numbers, arrays of texts, dicts, lists and
            tuples of these, and dataclasses of taxlens whose fields are such.

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
    except (OSError, ValueError, KeyError, AttributeError, ImportError, zipfile.BadZipFile) as error:
        rows = [("file", path), ("reason", error)]
        raise StoreError(explain("a kept result cannot be read.", rows, "delete it: it will be made again.")) from error


def _told(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith(_OWN):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"made": [f"{type(value).__module__}:{type(value).__qualname__}", _told(fields, arrays)]}
    if type(value).__module__ == "torch" and hasattr(value, "detach"):
        held = value.detach().cpu()
        return {"tensor": _told((held.float() if held.dtype.itemsize == 2 else held).numpy(), arrays)}
    if isinstance(value, np.ndarray):
        if value.dtype == object and not all(isinstance(one, str) for one in value.ravel()):
            raise UsageError(
                explain("an array in a result must be of numbers or of texts.", [("got", value.ravel()[:3])])
            )
        held = value if value.dtype != object else np.array([str(one) for one in value.ravel()]).reshape(value.shape)
        arrays[f"a{len(arrays)}"] = held
        return {"array": f"a{len(arrays) - 1}", "object": value.dtype == object}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_told(one, arrays) for one in value]}
    if isinstance(value, Mapping):
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
    if "made" in told:
        return _result(told["made"][0], _made(told["made"][1], file))
    if "tensor" in told:
        return Lazy("torch:from_numpy")(_made(told["tensor"], file))
    if "list" in told:
        return [_made(one, file) for one in told["list"]]
    if "tuple" in told:
        return tuple(_made(one, file) for one in told["tuple"])
    return {_made(key, file): _made(one, file) for key, one in told["dict"]}


def _result(place: str, fields: dict[str, Any]) -> Any:
    """A dataclass of taxlens made of its fields; nothing else is ever called."""
    kind = Lazy(place).load() if place.startswith(_OWN) else None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{place} is no result of taxlens")
    given = {field.name for field in dataclasses.fields(kind) if field.init}
    return kind(**{name: value for name, value in fields.items() if name in given})
