"""A PEFT adapter put on a base model that is loaded once: aligned shares every tensor that the adapter leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from taxlens.activations.models.checkpoint import checkpoint_directory
from taxlens.activations.models.loading import LoadedModel, check_finite, copy_sharing, load_tokenizer, quiet
from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import ModelLoadError, PairMismatchError, explain

_PREFIX = "base_model.model."


def apply_adapter(base: LoadedModel, adapter: str | Path) -> LoadedModel:
    """Return base + adapter as a model of its own that shares every tensor the adapter does not change.

    Args:
        base: the model that the adapter was trained on; it is left as it is.
        adapter: directory or hub id with adapter_config.json and adapter_model.safetensors.

    Returns:
        The merged model, on the base's device and in its dtype. The tokenizer and the chat template are the
        adapter directory's, where it has them, else the base's.

    Raises:
        ModelLoadError: if the adapter is missing, unreadable, a pickle, or not finite.
        PairMismatchError: if it was made for another base.
    """
    directory = checkpoint_directory(adapter)
    path = _adapter_file(directory)
    changed = _check_fits(path, base)
    twin = copy_sharing(base.model, apart=changed)
    merged = _merge(twin, directory)
    check_finite(merged, str(adapter))
    own = (directory / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(directory) if own else base.tokenizer
    digest = hashlib.sha256(f"{base.sha256}\n{sha256_file(path)}\n".encode()).hexdigest()
    return dataclasses.replace(
        base,
        model=merged.eval().requires_grad_(False),
        tokenizer=tokenizer,
        source=f"{base.source} + {adapter}",
        sha256=digest,
        chat_template=tokenizer.chat_template or base.chat_template,
    )


def _adapter_file(directory: Path) -> Path:
    path = directory / "adapter_model.safetensors"
    if not (directory / "adapter_config.json").is_file():
        rows = [("directory", directory), ("wanted", "adapter_config.json")]
        raise ModelLoadError(explain("no PEFT adapter here.", rows, "give the directory that PEFT saved."))
    if path.is_file():
        return path
    if (directory / "adapter_model.bin").is_file():
        rows = [("file", directory / "adapter_model.bin")]
        fix = "load it where you trust it, and save_pretrained(..., safe_serialization=True)."
        raise ModelLoadError(explain("pickle adapters are refused: they can run code.", rows, fix))
    rows = [("directory", directory), ("wanted", path.name)]
    raise ModelLoadError(explain("the adapter has no weights.", rows, "give the directory that PEFT saved."))


def _check_fits(path: Path, base: LoadedModel) -> set[str]:
    """Check every tensor of the adapter against the base; return the base parameters that it changes."""
    try:
        with safe_open(path, framework="pt") as tensors:
            shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        rows = [("file", path), ("reason", error)]
        raise ModelLoadError(explain("the adapter cannot be read.", rows, "copy it again.")) from error
    parameters = dict(base.model.named_parameters(remove_duplicate=False))
    changed = set()
    for key, shape in shapes.items():
        name, _, part = key.removeprefix(_PREFIX).partition(".lora_")
        target = name + ".weight" if part else name.replace(".modules_to_save", "").replace(".base_layer", "")
        weight = parameters.get(target)
        if weight is None:
            raise _foreign(path, base, key, "no such module in the base")
        if part and not _lora_fits(part, shape, weight):
            raise _foreign(path, base, key, f"shape {list(shape)} on a weight of {list(weight.shape)}")
        if not part and shape != tuple(weight.shape):
            raise _foreign(path, base, key, f"shape {list(shape)} for a weight of {list(weight.shape)}")
        changed.add(target)
    return changed


def _lora_fits(part: str, shape: tuple[int, ...], weight: torch.Tensor) -> bool:
    sizes = set(weight.shape)
    if part.startswith(("A", "embedding_A")):
        return shape[-1] in sizes
    if part.startswith(("B", "embedding_B")):
        return shape[0] in sizes
    return True


def _foreign(path: Path, base: LoadedModel, key: str, got: str) -> PairMismatchError:
    rows = [("adapter", path.parent), ("base", base.source), ("tensor", key), ("got", got)]
    fix = "give the base that the adapter was trained on (adapter_config.json names it)."
    return PairMismatchError(explain("this adapter was made for another base.", rows, fix))


def _merge(model: Any, directory: Path) -> Any:
    from peft import PeftModel

    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            return PeftModel.from_pretrained(model, str(directory)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        rows = [("adapter", directory), ("reason", reason)]
        raise ModelLoadError(explain("the adapter cannot be merged.", rows, "check adapter_config.json.")) from error
