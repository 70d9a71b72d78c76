"""Files of arrays, tensors, plain values and results of taxlens, and nothing that can run; read where nobody vouches for them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.core.artifacts import atomic_path, sha256_file
from taxlens.core.errors import StoreError, TaxlensError, UsageError, explain
from taxlens.core.lazy import Lazy

if TYPE_CHECKING:
    import torch

_TREE, _OWN = "tree", "taxlens."
_OURS = "taxlens"
_SEAL = b"taxlens sha256 "
_AGAIN = "delete it: it will be made again."
_DENSEST = 20
"""How many times larger than its file an archive may unpack."""
_DAMAGES = (
    OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, ArithmeticError, SyntaxError, RecursionError,
    RuntimeError, AttributeError, ImportError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
"""What numpy, zipfile and safetensors raise over a damaged file."""


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
    write_arrays(path, arrays | {_TREE: np.frombuffer(tree, dtype=np.uint8)})


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays by name as one .npz file, whole or not at all, and return its path."""
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)
        seal = _SEAL + sha256_file(temporary).encode("ascii")
        with open(temporary, "r+b") as stream:  # as the archive's comment: its length, then itself
            stream.seek(-2, os.SEEK_END)
            stream.write(len(seal).to_bytes(2, "little") + seal)
    return path


def _check_seal(path: Path, *, needed: bool) -> None:
    """Compare an archive's bytes with the hash in its comment, where it has one.

    Raises:
        ValueError: they differ, or there is none and it is needed.
    """
    content = path.read_bytes()
    body, mark = content[: -len(_SEAL) - 64], content[-len(_SEAL) - 64 :]
    if not mark.startswith(_SEAL):
        if needed:
            raise ValueError("it bears no hash, or is not whole")
        return
    if hashlib.sha256(body[:-2] + b"\0\0").hexdigest().encode("ascii") != mark[len(_SEAL) :]:
        raise ValueError("changed since it was written")


def read_plain(path: Path) -> Any:
    """Read what `write_plain` wrote.

    Raises:
        StoreError: the file is damaged or none of these.
    """
    arrays = read_arrays(path, title="a kept result cannot be read.", ours=True)
    try:
        return _made(json.loads(arrays[_TREE].tobytes().decode("utf-8")), arrays)
    except _DAMAGES as error:
        rows = [("file", path), ("reason", _first(error))]
        raise StoreError(explain("a kept result cannot be read.", rows, _AGAIN)) from error


def read_arrays(
    path: Path | str, *, title: str, error: type[TaxlensError] = StoreError, fix: str = _AGAIN, ours: bool = False
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name; compared with the archive's checksums and the hash of `write_arrays`.

    Args:
        path: the file.
        title: the error's first line.
        error: class to raise.
        fix: what to try.
        ours: refuse a file without the hash that `write_arrays` puts in.

    Raises:
        TaxlensError: of class `error`: no such file, damaged, an array of Python objects, or far larger than its file.
    """
    try:
        _check_seal(Path(path), needed=ours)
        with zipfile.ZipFile(path) as archive:
            unpacked, packed = sum(one.file_size for one in archive.infolist()), Path(path).stat().st_size
        if unpacked > _DENSEST * packed + 1_000_000:
            raise ValueError(f"unpacks from {packed} to {unpacked} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if other := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return arrays
    except _DAMAGES as reason:
        raise error(explain(title, [("file", path), ("reason", _first(reason))], fix)) from reason


def read_tensors(
    path: Path | str, *, title: str, error: type[TaxlensError] = StoreError, fix: str = _AGAIN
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and its metadata; compared with the hash of `write_tensors`.

    The format itself holds no checksum: in a file of another origin, changed numbers are not found.

    Args:
        path: the file.
        title: the error's first line.
        error: class to raise.
        fix: what to try.

    Raises:
        TaxlensError: of class `error`: no such file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = dict(stored.metadata() or {})
        if _OURS not in metadata:
            return tensors, metadata
        ours = json.loads(metadata[_OURS])
        if ours["sha256"] != _digest(tensors, ours["metadata"]):
            raise ValueError("changed since it was written")
        return tensors, dict(ours["metadata"])
    except (SafetensorError, *_DAMAGES) as reason:
        raise error(explain(title, [("file", path), ("reason", _first(reason))], fix)) from reason


def write_tensors(
    path: Path | str, tensors: Mapping[str, torch.Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors by name as one safetensors file with a hash of all that is in it, and return the path.

    Args:
        path: the file.
        tensors: torch tensors or numpy arrays.
        metadata: texts by name.
    """
    import torch
    from safetensors.torch import save_file

    held = {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}
    told = dict(metadata or {})
    ours = json.dumps({"metadata": told, "sha256": _digest(held, told)}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(held, temporary, metadata={_OURS: ours})  # one entry: the library writes several in any order
    return Path(path)


def _digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode("utf-8"))
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


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
