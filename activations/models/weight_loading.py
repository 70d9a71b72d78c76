"""Weights of a checkpoint put into an ordinary model: complete, dequantised, the text part alone, on its devices."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from taxlens.activations.items.out_of_memory import check_memory
from taxlens.activations.models.checkpoint import first_line
from taxlens.activations.models.contents import Contents, renaming
from taxlens.activations.models.quantised.dequantised_state import DequantisedState, dequantised_state, renamer
from taxlens.activations.models.quantised.weight_formats import FormatError
from taxlens.core.errors import ModelLoadError, explain

_PACKAGES = {
    "bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel", "compressed-tensors": "compressed-tensors",
    "hqq": "hqq", "quanto": "optimum-quanto", "aqlm": "aqlm", "torchao": "torchao", "eetq": "eetq", "vptq": "vptq",
    "spqr": "spqr_quant", "auto-round": "auto-round", "higgs": "flute-kernel", "quark": "amd-quark",
}  # fmt: skip
"""Quantisation method -> the package that reads it."""


def weights_in_place(
    directory: Path, contents: Contents, *, gguf: str | None, dtype: torch.dtype, placement: Any
) -> tuple[Any, tuple[str, ...]]:
    """Return a checkpoint's language model with ordinary weights, and what a reader must know of how it was read.

    Args:
        directory: the checkpoint.
        contents: what is in it.
        gguf: its GGUF file, instead of safetensors.
        dtype: of the weights.
        placement: a device, "balanced", "sequential" or a device map.

    Raises:
        ModelLoadError: weights are missing, surplus or of another shape, cannot be dequantised, or do not fit.
    """
    mapped = isinstance(placement, str | dict)
    method = quantisation(contents.config)
    notes = []
    decoded, unread = _decoded(directory, contents, dtype) if method and not gguf else (None, "")
    if decoded is not None:
        model = _from_state(directory, contents, decoded, dtype, placement if mapped else None)
        notes.append(
            f"weights of {directory.name} are stored as {method}: dequantised to {_name(dtype)} on loading "
            f"({decoded.told}; activations are not quantised)"
        )
        method = ""
    else:
        model = _loaded(directory, contents, gguf, dtype, placement if mapped else None, unread)
    if gguf:
        model = _plain_copy(model, dtype)
        notes.append(f"weights of {gguf} are dequantised to {_name(dtype)} on loading")
    elif method:
        model = _dequantised(model, directory, method, dtype)
        notes.append(f"weights of {directory.name} are stored as {method}: dequantised to {_name(dtype)} on loading")
    model, note = text_part(model)
    notes += [note] if note else []
    _check_ordinary(model, directory, method)
    if mapped:
        _check_placed(model, placement)
    else:
        model = model.to(placement)
    return model.eval().requires_grad_(False), tuple(notes)


def quantisation(config: dict[str, Any]) -> str:
    """Name of the method that a config says its weights are quantised by; blank where they are not."""
    found = _settings(config)
    if not found:
        return ""
    bits = {"load_in_4bit": " 4-bit", "load_in_8bit": " 8-bit"}
    width = next((text for key, text in bits.items() if found.get(key)), "")
    method = str(found.get("quant_method") or ("bitsandbytes" if width else "an unknown method"))
    return method + (width or (f" {found['bits']}-bit" if "bits" in found else ""))


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    found = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    return found if isinstance(found, dict) else {}


def text_part(model: Any) -> tuple[Any, str]:
    """Return the language model inside a model of text and images (or the model itself), and a note on what is left.

    The parts are the same modules, put under the architecture's text-only class.
    """
    config = model.config.get_text_config()
    if config is model.config or not hasattr(model, "lm_head"):
        return model, ""
    inner = getattr(model.model, "language_model", None)
    if inner is None:
        return model, ""
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = kind(copy.deepcopy(config))
    setattr(twin, twin.base_model_prefix, inner)
    twin.lm_head = model.lm_head
    twin.config = inner.config = config
    twin.config._attn_implementation = model.config._attn_implementation
    twin.config.tie_word_embeddings = model.lm_head.weight is inner.get_input_embeddings().weight
    return twin, f"the text part of {type(model).__name__} is read; what sees images is left aside"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off standard error inside the block."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def _decoded(directory: Path, contents: Contents, dtype: torch.dtype) -> tuple[DequantisedState | None, str]:
    """The state dict of weights that say themselves how they are stored; else None, and why not."""
    try:
        found = dequantised_state(
            list(contents.files), _settings(contents.config), dtype, renamed=renamer(renaming(contents))
        )
    except FormatError as error:
        return None, str(error)
    return (found, "") if found.told else (None, f"no quantised weights in {directory.name}")


def _from_state(
    directory: Path, contents: Contents, found: DequantisedState, dtype: torch.dtype, device_map: Any
) -> Any:
    """The model of a config on weights that are decoded."""
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turned = {f"{name}.weight" for name, m in kind(copy.deepcopy(config)).named_modules() if isinstance(m, Conv1D)}
    state = found.state
    for name in found.decoded:  # these layers store [inputs, outputs]
        if any(one == name or one.endswith(f".{name}") for one in turned):
            state[name] = state[name].T.contiguous()
    options = {"device_map": device_map} if device_map is not None else {}
    try:
        with quiet():
            model, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise _refused(directory, contents, error) from error
    _check_complete(directory, info, contents)
    return model.to(dtype) if device_map is None else model


def _loaded(
    directory: Path, contents: Contents, gguf: str | None, dtype: torch.dtype, device_map: Any, unread: str
) -> Any:
    options: dict[str, Any] = {
        "dtype": dtype, "attn_implementation": "eager", "local_files_only": True, "trust_remote_code": False
    }  # fmt: skip
    if gguf:
        options["gguf_file"] = gguf
    else:
        options |= {"use_safetensors": True, "output_loading_info": True}
        options |= {"device_map": device_map} if device_map is not None else {}
        options |= {"key_mapping": names} if (names := renaming(contents)) else {}
    try:
        with quiet():
            if not gguf:
                options["config"] = _config(directory)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(directory, **options)
    except Exception as error:
        check_memory(error, what=f"loading {directory}")
        raise _refused(directory, contents, error, unread) from error
    if gguf:
        return loaded
    model, info = loaded
    _check_complete(directory, info, contents)
    return model


def _config(directory: Path) -> Any:
    """The config, with dequantisation asked for where the method offers it."""
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    found = getattr(config, "quantization_config", None)
    if isinstance(found, dict):
        kind: Any = AUTO_QUANTIZATION_CONFIG_MAPPING.get(str(found.get("quant_method")))
        if kind is not None and "dequantize" in inspect.signature(kind).parameters:
            found["dequantize"] = True
    return config


def _refused(directory: Path, contents: Contents, error: Exception, unread: str = "") -> ModelLoadError:
    rows: list[tuple[str, object]] = [("directory", directory), ("reason", first_line(error))]
    method = quantisation(contents.config)
    if not method:
        fix = "check config.json and the weight files; copy them again if they are truncated."
        return ModelLoadError(explain("the checkpoint cannot be loaded.", rows, fix))
    rows.insert(1, ("weights", method))
    rows += [("read here", f"no: {unread}")] if unread else []
    package = _PACKAGES.get(method.split()[0])
    fix = f"pip install {package}, or " if package and isinstance(error, ImportError | ValueError) else ""
    fix += "give the checkpoint that it was quantised from."
    return ModelLoadError(explain("quantised weights cannot be read here.", rows, fix))


def _dequantised(model: Any, directory: Path, method: str, dtype: torch.dtype) -> Any:
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        try:
            with quiet():
                model = model.dequantize(dtype=dtype)
        except (NotImplementedError, ValueError) as error:
            if not _is_ordinary(model):
                rows = [("directory", directory), ("weights", method), ("reason", first_line(error))]
                fix = "give the checkpoint that it was quantised from."
                raise ModelLoadError(explain("these weights cannot be dequantised.", rows, fix)) from error
        for name in ("hf_quantizer", "quantization_method", "is_quantized"):
            if name in vars(model):
                delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(dtype)


def _is_ordinary(model: Any) -> bool:
    return all(p.is_floating_point() and p.element_size() > 1 for p in model.parameters())


def _check_ordinary(model: Any, directory: Path, method: str) -> None:
    if not _is_ordinary(model):
        name, first = next(
            (n, p) for n, p in model.named_parameters() if not p.is_floating_point() or p.element_size() < 2
        )
        rows = [("directory", directory), ("weights", method or "packed"), ("first", f"{name}, {first.dtype}")]
        fix = "give the checkpoint that it was quantised from."
        raise ModelLoadError(explain("weights are packed and cannot be compared.", rows, fix))


def _check_complete(directory: Path, info: dict[str, Any], contents: Contents) -> None:
    for key, title in (
        ("missing_keys", "the checkpoint lacks weights of its architecture."),
        ("unexpected_keys", "the checkpoint holds weights that its architecture has no place for."),
        ("mismatched_keys", "weights of the checkpoint have other shapes than its config says."),
    ):
        left = contents.left_aside if key == "unexpected_keys" else ()
        if names := sorted(str(name) for name in info.get(key) or () if name not in left):
            rows = [("directory", directory), ("tensors", f"{len(names)}, first {names[0]}")]
            raise ModelLoadError(explain(title, rows, "check config.json against the weight files."))


def _check_placed(model: torch.nn.Module, placement: str | dict[str, Any]) -> None:
    """Refuse a device map that leaves weights out, and devices that do not hold all weights."""
    names = [name for name, _ in model.named_parameters()]
    if isinstance(placement, dict):
        left = [name for name in names if not any(f"{name}.".startswith(f"{key}." if key else "") for key in placement)]
        if left:
            rows = [("map", placement), ("left out", f"{len(left)} tensors, first {left[0]}")]
            raise ModelLoadError(explain("the device map leaves weights out.", rows, 'add them, or an entry "".'))
    away = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if away:
        rows = [("device", placement), ("left over", f"{len(away)} tensors, first {away[0]}")]
        fix = "a smaller dtype, more devices, or device: cpu."
        raise ModelLoadError(explain("the devices do not hold all weights.", rows, fix))


def _plain_copy(model: Any, dtype: torch.dtype) -> Any:
    """A dequantised model as an ordinary one: the state dict in a fresh model of the same config."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = transformers.AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation="eager", trust_remote_code=False
    )
    fresh.load_state_dict(model.state_dict())
    return fresh


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
