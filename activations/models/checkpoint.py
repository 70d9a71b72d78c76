"""A checkpoint's files: found, refused if they are pickles, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from taxlens.core.artifacts import sha256_file, sha256_json
from taxlens.core.errors import CheckError, ModelLoadError, explain
from taxlens.core.json_text import read_json
from taxlens.core.parallel import processors

_HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTERS = ("adapter_model.safetensors",)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def checkpoint_directory(source: str | Path, *, revision: str | None = None, cached: bool = False) -> Path:
    """Return the local directory of a checkpoint, fetching it first if `source` is a hub id.

    Only safetensors and text files are fetched, never pickles and never code.

    Args:
        source: a directory, or a hub id ("owner/name").
        revision: branch, tag or commit of a hub id.
        cached: do not ask the hub; what was fetched before or nothing.

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

    options = {
        "revision": revision,
        "allow_patterns": list(_HUB_FILES),
        **({"local_files_only": True} if cached else {}),
    }
    try:
        return Path(snapshot_download(str(source), **options))
    except Exception as error:
        rows = [("source", source), ("revision", revision or "default"), ("hub says", first_line(error))]
        title, fix = _hub_refusal(error)
        raise ModelLoadError(explain(title, rows, fix)) from error


def _hub_refusal(error: Exception) -> tuple[str, str]:
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, GatedRepoError):
        return "the hub asks for permission before it gives this model.", "accept its terms, then `hf auth login`."
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)):
        fix = "give a local directory, or fetch it first where there is a network: `hf download NAME`."
        return "the hub cannot be reached, and this model is not in its cache.", fix
    fix = "check the name and revision, log in if the model is private, or give a local directory."
    return "no such directory, and the hub did not give it.", fix


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files that are loaded: `model.safetensors`, else the shards of the index, by name.

    This is the order in which transformers looks, so that the files that are hashed are the files that were read.

    Raises:
        ModelLoadError: if a shard of the index is missing, only pickles are there, or no weights at all.
    """
    if (directory / _SINGLE).is_file():
        return [directory / _SINGLE]
    index = directory / _INDEX
    if index.is_file():
        names = _shard_names(index)
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            rows = [("directory", directory), ("missing", f"{len(missing)} of {len(names)}, first {missing[0]}")]
            raise ModelLoadError(explain("shards of the checkpoint are missing.", rows, "copy it again."))
        return [directory / name for name in names]
    other = sorted(path.name for path in directory.glob("*.safetensors") if path.name not in _ADAPTERS)
    if other:
        rows = [("directory", directory), ("wanted", f"{_SINGLE}, or {_INDEX}"), ("found", ", ".join(other[:3]))]
        fix = f"copy {_INDEX} too, or name the one file {_SINGLE}."
        raise ModelLoadError(explain("nothing says which of these files are the weights.", rows, fix))
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        rows = [("directory", directory), ("found", ", ".join(pickles[:3]))]
        fix = "convert it: load it where you trust it, then save_pretrained(...) writes safetensors."
        raise ModelLoadError(explain("pickle checkpoints are refused: they can run code.", rows, fix))
    rows = [("directory", directory), ("wanted", "*.safetensors")]
    raise ModelLoadError(explain("no weights here.", rows, "give a directory with safetensors, or gguf: FILE."))


def shard_map(directory: Path) -> dict[str, str]:
    """Which file holds which weight, by the index of a sharded checkpoint; empty where one file holds all.

    Raises:
        ModelLoadError: the index cannot be read.
    """
    index = directory / _INDEX
    if (directory / _SINGLE).is_file() or not index.is_file():
        return {}
    title = "the shard index cannot be read."
    whole = read_json(index, title=title, error=ModelLoadError, fix="copy it again.")
    named = whole.get("weight_map") if isinstance(whole, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        rows = [("file", index), ("weight_map", "tensor name -> file name is wanted")]
        raise ModelLoadError(explain(title, rows, "copy it again."))
    return named


def _shard_names(index: Path) -> list[str]:
    names = sorted(set(shard_map(index.parent).values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        rows = [("file", index), ("names", outside[0])]
        raise ModelLoadError(explain("the shard index names a file outside its directory.", rows, "do not trust it."))
    return names


def weights_sha256(files: list[Path]) -> str:
    """Return the SHA-256 of a checkpoint's weights.

    One file: the file's own hash, as `sha256sum` prints it. Several: the hash of what `sha256sum *` prints.
    """
    if len(files) == 1:
        return _sha256_of(files[0])
    with ThreadPoolExecutor(processors(most=len(files))) as pool:  # hashing lets other threads run
        hashes = list(pool.map(_sha256_of, files))
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def unread_weights(directory: Path) -> str:
    """What to know of weights that lie beside those that are read; empty where there are none."""
    if (directory / _SINGLE).is_file() and (directory / _INDEX).is_file():
        return f"{directory.name} holds two sets of weights: {_SINGLE} is read, the shards of {_INDEX} are not"
    read = {path.name for path in weight_files(directory)}
    found = {path.name for pattern in _OTHER_SETS for path in directory.glob(pattern)} - read
    if not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{directory.name} holds a further set of weights that is not read: {min(found)}{more}"


_OTHER_SETS = (
    "model.*.safetensors", "model-*-of-*.safetensors", "consolidated*.safetensors", "pytorch_model*.bin", "consolidated*.pth",
)  # fmt: skip
"""Names under which whole models are saved beside the one that is read."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


_TEXTS = ("*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
RESTORATION = "taxlens_restoration.json"
"""What a restored checkpoint says of itself: the plan, what was measured, and the hash of every file."""

_NOT_READ = (RESTORATION, "trainer_state.json", "training_args.json", "all_results.json")


def checkpoint_sha256(directory: Path, *, gguf: str | None = None) -> str:
    """Return one SHA-256 of everything in a checkpoint's (or adapter's) directory that decides what it computes.

    These are weights, config, tokenizer and chat template; notes and training logs beside them do not count.

    Args:
        directory: the directory.
        gguf: file name inside it, for a GGUF checkpoint.
    """
    weights = [directory / gguf] if gguf else sorted(directory.glob("*.safetensors"))
    texts = {path for pattern in _TEXTS for path in directory.glob(pattern) if path.name not in _NOT_READ}
    lines = [f"{_sha256_of(path)}  {path.name}\n" for path in (*weights, *sorted(texts))]
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def _sha256_of(path: Path) -> str:
    """A file's hash, computed once in a process while size, times and place on disk stay as they are."""
    facts = path.stat()
    return _kept_sha256(str(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


@lru_cache(maxsize=256)
def _kept_sha256(path: str, *facts: int) -> str:
    return sha256_file(path)


def restored_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a restored checkpoint by name, as its record says.

    Raises:
        CheckError: the record holds none, or was changed.
    """
    facts = read_json(folder / RESTORATION, title="the record of a restored checkpoint cannot be read.")
    kept = facts.get("files") if isinstance(facts, dict) else None
    if not isinstance(kept, dict) or facts.get("seal") != sha256_json({k: v for k, v in facts.items() if k != "seal"}):
        rows = [("file", folder / RESTORATION), ("found", "no checksums, or they were changed")]
        raise CheckError(explain("the restored checkpoint cannot be verified.", rows, "restore it again."))
    return kept


def changed_files(folder: Path, kept: Mapping[str, str]) -> list[tuple[str, str]]:
    """("missing" or "changed", name) of every file that is not as the hashes by name say."""
    found = [("missing", name) for name in kept if not (folder / name).is_file()]
    there = [name for name in kept if (folder / name).is_file()]
    return found + [("changed", name) for name in there if sha256_file(folder / name) != kept[name]]


def check_restored(folder: Path) -> None:
    """Refuse a checkpoint or adapter that taxlens wrote and that was changed since; others pass, and so does a new card.

    Raises:
        CheckError: naming every file that was changed or is missing.
    """
    if not (folder / RESTORATION).is_file():
        return
    kept = {name: digest for name, digest in restored_files(folder).items() if not name.endswith(".md")}
    if wrong := changed_files(folder, kept):
        fix = f"restore it again; if the change was meant, remove {RESTORATION} from the folder."
        raise CheckError(explain(f"{folder} is not as taxlens wrote it.", wrong, fix))
