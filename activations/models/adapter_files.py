"""A PEFT adapter's directory, read before it is put on a model: its kind, its tensors, and whether they fit the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from taxlens.activations.models.checkpoint import check_restored, first_line
from taxlens.core.errors import ModelLoadError, PairMismatchError, explain
from taxlens.core.json_text import read_json

_PREFIX = "base_model.model."
_NOT_WEIGHTS = {
    "PROMPT_TUNING": "vectors in front of the prompt", "MULTITASK_PROMPT_TUNING": "vectors in front of the prompt",
    "P_TUNING": "vectors in front of the prompt", "PREFIX_TUNING": "keys and values in front of the prompt",
    "CPT": "vectors in front of the prompt", "CARTRIDGE": "keys and values in front of the prompt",
    "ADAPTION_PROMPT": "vectors that attention reads besides the prompt",
    "XLORA": "a mixture of adapters that each input chooses anew", "POLY": "a mixture of adapters that each task chooses",
    "SHADOW": "a second network beside the model",
}  # fmt: skip
"""Adapter kinds that are no change of the base's weights, and what they are."""


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What an adapter's directory holds.

    Args:
        directory: where it is.
        weights: its safetensors file.
        config: adapter_config.json.
        shapes: tensor name to shape.
        rows: rows that its embedding or output head has, where they are not the base's; else None.
        notes: sentences that a reader of results must know.
    """

    directory: Path
    weights: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    rows: int | None = None
    notes: tuple[str, ...] = ()


def read_adapter(directory: Path, model: Any, source: str) -> AdapterFiles:
    """Return what an adapter's directory holds, checked against the base that it is to be put on.

    Args:
        directory: an adapter's directory.
        model: the base, a Hugging Face causal language model.
        source: what the base is called.

    Raises:
        ModelLoadError: no adapter, a pickle, unreadable files, or a kind that is no change of weights.
        PairMismatchError: it was made for another base.
        CheckError: taxlens wrote it and it was changed since.
    """
    check_restored(directory)
    config = _config(directory)
    kind = str(config.get("peft_type") or "LORA").upper()
    _check_kind(directory, config, kind)
    weights = _weights(directory)
    shapes = _shapes(weights)
    rows = _check_fits(directory, model, source, shapes, kind)
    notes = [_other_base(config, source), _others_inside(directory)]
    if rows is not None:
        had = int(model.get_input_embeddings().weight.shape[0])
        notes.append(f"the adapter brings an embedding of {rows} rows, the base has {had}: aligned is given {rows}")
    return AdapterFiles(directory, weights, config, shapes, rows, tuple(note for note in notes if note))


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    if not path.is_file():
        inside = sorted(p.parent.name for p in directory.glob("*/adapter_config.json"))
        rows = [("directory", directory), ("wanted", path.name)]
        rows += [("adapters inside", ", ".join(inside[:8]))] if inside else []
        fix = f"{directory / inside[0]}" if inside else "give the directory that PEFT saved."
        raise ModelLoadError(explain("no PEFT adapter here.", rows, fix))
    found = read_json(path, title="adapter_config.json cannot be read.", error=ModelLoadError, fix="copy it again.")
    if not isinstance(found, dict):
        raise ModelLoadError(explain("adapter_config.json is no table of keys.", [("file", path)], "copy it again."))
    return found


def _check_kind(directory: Path, config: Mapping[str, Any], kind: str) -> None:
    rows: list[tuple[str, object]] = [("adapter", directory), ("peft_type", kind)]
    if kind in _NOT_WEIGHTS:
        rows.append(("it is", _NOT_WEIGHTS[kind]))
        fix = "use an adapter that changes weights (LoRA and its kin): only these have a place in the model."
        raise ModelLoadError(explain(f"{kind} adapters change no weights and cannot be merged.", rows, fix))
    if config.get("layer_replication"):
        rows.append(("layer_replication", config["layer_replication"]))
        fix = "compare it with a base that has the same layers: build that, and give both as whole models."
        raise ModelLoadError(explain("this adapter repeats layers: the result is deeper than its base.", rows, fix))


def _weights(directory: Path) -> Path:
    path = directory / "adapter_model.safetensors"
    if path.is_file():
        return path
    if (directory / "adapter_model.bin").is_file():
        rows = [("file", directory / "adapter_model.bin")]
        fix = "load it where you trust it, and save_pretrained(..., safe_serialization=True)."
        raise ModelLoadError(explain("pickle adapters are refused: they can run code.", rows, fix))
    rows = [("directory", directory), ("wanted", path.name)]
    raise ModelLoadError(explain("the adapter has no weights.", rows, "give the directory that PEFT saved."))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        rows = [("file", path), ("reason", first_line(error))]
        raise ModelLoadError(explain("the adapter cannot be read.", rows, "copy it again.")) from error


def _check_fits(
    directory: Path, model: Any, source: str, shapes: Mapping[str, tuple[int, ...]], kind: str
) -> int | None:
    """Check every tensor's place and shape; return the rows of its embeddings where they are not the base's."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = {name for name, _ in model.named_modules()}
    vocabulary = _vocabulary_modules(model, modules)
    sizes: dict[str, int] = {}
    for key, shape in shapes.items():
        name = key.removeprefix(_PREFIX)
        for inner in (".modules_to_save", ".base_layer", ".original_module"):
            name = name.replace(inner, "")
        module, part = _place(name, modules, kind)
        if module is None:
            raise _foreign(directory, source, key, "no such module in the base")
        weight = parameters.get(f"{module}.{part}" if part in ("weight", "bias") else f"{module}.weight")
        if module in vocabulary and (rows := _vocabulary_rows(part, shape)) is not None:
            sizes[module] = rows
            continue
        if weight is None or (wrong := _wrong_shape(part, shape, weight)) is None:
            continue
        raise _foreign(directory, source, key, wrong)
    return _new_rows(directory, model, sizes, len(vocabulary))


def _place(name: str, modules: set[str], kind: str) -> tuple[str | None, str]:
    """The base's module that a tensor belongs to, and what is left of the tensor's name; no module: it has no place."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    pieces = name.split(".")
    own = (str(PEFT_TYPE_TO_PREFIX_MAPPING.get(kind, kind.lower() + "_")), kind.lower() + "_")
    if pieces[0] == "base_model" and len(pieces) > 1 and pieces[1].startswith(own):
        return "", ".".join(pieces[1:])  # shared by all modules, as VeRA's projections
    for length in range(len(pieces) - 1, 0, -1):
        module = ".".join(pieces[:length])
        if module in modules:
            part = ".".join(pieces[length:])
            known = part.startswith((*own, "lora_", "trainable_tokens_", "token_adapter")) or part in ("weight", "bias")
            return (module, part) if known or "." not in part else (None, part)
    return None, name


def _wrong_shape(part: str, shape: tuple[int, ...], weight: Any) -> str | None:
    if part in ("weight", "bias"):
        if shape != tuple(weight.shape):
            return f"shape {list(shape)} for a weight of {list(weight.shape)}"
        return None
    if weight.ndim != 2 or not part.startswith("lora_"):
        return None
    sizes = set(weight.shape)
    first = part.removeprefix("lora_")
    fits = shape[-1] in sizes if first.startswith(("A", "embedding_A")) else True
    fits = shape[0] in sizes if first.startswith(("B", "embedding_B")) else fits
    return None if fits else f"shape {list(shape)} on a weight of {list(weight.shape)}"


def _vocabulary_modules(model: Any, modules: set[str]) -> set[str]:
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    return {name for name in modules if model.get_submodule(name) in [end for end in ends if end is not None]}


def _vocabulary_rows(part: str, shape: tuple[int, ...]) -> int | None:
    """Rows of the vocabulary that a tensor on an embedding or output head stands for; None where it says nothing."""
    if part == "weight":
        return shape[0]
    if part.startswith("lora_embedding_A"):
        return shape[1]
    return None


def _new_rows(directory: Path, model: Any, sizes: Mapping[str, int], modules: int) -> int | None:
    had = int(model.get_input_embeddings().weight.shape[0])
    found = {rows for rows in sizes.values() if rows != had}
    if not found:
        return None
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    if len(set(sizes.values())) > 1 or (len(sizes) < modules and not tied):
        rows = [("adapter", directory), ("rows", ", ".join(f"{k}: {v}" for k, v in sizes.items())), ("base", had)]
        fix = "save it with save_embedding_layers=True, so that embedding and output head are both there."
        raise PairMismatchError(explain("the adapter resizes the vocabulary, but not of every layer.", rows, fix))
    return found.pop()


def _foreign(directory: Path, source: str, key: str, got: str) -> PairMismatchError:
    rows = [("adapter", directory), ("base", source), ("tensor", key), ("got", got)]
    fix = "give the base that the adapter was trained on (adapter_config.json names it)."
    return PairMismatchError(explain("this adapter was made for another base.", rows, fix))


def _other_base(config: Mapping[str, Any], source: str) -> str:
    named = str(config.get("base_model_name_or_path") or "")
    last = Path(named).name.lower()
    if not last or last in source.lower() or Path(source).name.lower() in named.lower():
        return ""
    return f"the adapter names {named} as its base; it is put on {source}"


def _others_inside(directory: Path) -> str:
    inside = sorted(p.parent.name for p in directory.glob("*/adapter_config.json"))
    return f"{directory.name} holds further adapters that are not read: {', '.join(inside)}" if inside else ""
