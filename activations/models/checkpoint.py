"""A checkpoint's files: found, refused if they are pickles, and hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import ModelLoadError, explain

_HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def checkpoint_directory(source: str | Path, *, revision: str | None = None) -> Path:
    """Return the local directory of a checkpoint, fetching it first if `source` is a hub id.

    Only safetensors and text files are fetched, never pickles and never code.

    Args:
        source: a directory, or a hub id ("owner/name").
        revision: branch, tag or commit of a hub id.

    Raises:
        ModelLoadError: if neither a directory nor a reachable hub repository has this name.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or str(source).startswith("."):
        what = "a file" if path.exists() else "nothing"
        rows = [("source", source), ("found", what)]
        raise ModelLoadError(explain("no checkpoint directory here.", rows, "give the directory of config.json."))
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        rows = [("source", source), ("revision", revision or "default"), ("hub says", _first_line(error))]
        fix = "check the name and revision, log in if the model is gated, or give a local directory."
        raise ModelLoadError(explain("no such directory, and the hub did not give it.", rows, fix)) from error


def weight_files(directory: Path) -> list[Path]:
    """Return the checkpoint's safetensors files, sorted by name.

    Raises:
        ModelLoadError: if a shard of the index is missing, only pickles are there, or no weights at all.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(explain("the shard index cannot be read.", [("file", index)])) from error
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            rows = [("directory", directory), ("missing", f"{len(missing)} of {len(names)}, first {missing[0]}")]
            raise ModelLoadError(explain("shards of the checkpoint are missing.", rows, "copy it again."))
        return [directory / name for name in names]
    found = sorted(directory.glob("*.safetensors"))
    if found:
        return found
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        rows = [("directory", directory), ("found", ", ".join(pickles[:3]))]
        fix = "convert it: load it where you trust it, then save_pretrained(...) writes safetensors."
        raise ModelLoadError(explain("pickle checkpoints are refused: they can run code.", rows, fix))
    rows = [("directory", directory), ("wanted", "*.safetensors")]
    raise ModelLoadError(explain("no weights here.", rows, "give a directory with safetensors, or gguf: FILE."))


def weights_sha256(files: list[Path]) -> str:
    """Return the SHA-256 of a checkpoint's weights.

    One file: the file's own hash, as `sha256sum` prints it. Several: the hash of what `sha256sum *` prints.
    """
    if len(files) == 1:
        return sha256_file(files[0])
    lines = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
