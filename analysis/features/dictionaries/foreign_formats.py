"""Forms in which other libraries save dictionaries, one reader a family; the libraries themselves are not imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.core.errors import ConfigError, explain
from taxlens.core.json_text import read_json
from taxlens.core.plain_files import read_arrays, read_tensors

Tensor = torch.Tensor
Tensors = Mapping[str, Tensor]
UNREADABLE = "the dictionary cannot be read."
COPY = "copy its folder again."


@dataclass(frozen=True, slots=True)
class Found:
    """One family.

    Args:
        name: for messages.
        recognises: whether a folder holds such a dictionary.
        read: the dictionary in a folder.
        owns: whether tensors by name are of this family.
        from_tensors: the dictionary of tensors, config and file, where the family also comes pickled.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Dictionary]
    owns: Callable[[Tensors], bool] = lambda tensors: False
    from_tensors: Callable[[Tensors, Mapping[str, Any], Path], Dictionary] | None = None


def tensors_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, as float32.

    Raises:
        ConfigError: no such file, or damaged.
    """
    return {n: v.float() for n, v in read_tensors(path, title=UNREADABLE, error=ConfigError, fix=COPY)[0].items()}


def config_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ConfigError: no such file, no JSON, or no object.
    """
    found = read_json(path, title=UNREADABLE, error=ConfigError, fix=COPY)
    if not isinstance(found, dict):
        raise ConfigError(explain(UNREADABLE, [("file", path), ("reason", "no JSON object")], COPY))
    return found


def site_of(text: str) -> tuple[str, int]:
    """Site and layer that a hook point's name means ("layers.5", "layers.5.mlp", "resid_post_layer_5"), or ("", -1)."""
    layer = re.search(r"(?:layers?|blocks|h|L)[._]?(\d+)", text)
    if layer is None:
        return "", -1
    number = int(layer.group(1))
    rest = text[layer.end() :]
    if "mlp" in rest or "mlp" in text.split("layer")[0]:
        return "mlp_out", number
    if "attn" in text or "attention" in text:
        return "attn_out", number
    return "resid_post", number


def _gemma_scope(path: Path) -> Dictionary:
    """Gemma Scope 1: params.npz; the folder's place in the release says site and layer."""
    held = read_arrays(path / "params.npz", title=UNREADABLE, error=ConfigError, fix=COPY)
    tensors = {name: torch.from_numpy(np.asarray(value, dtype=np.float32)) for name, value in held.items()}
    return _gemma(tensors, path, {})


def _gemma_scope_2(path: Path) -> Dictionary:
    """Gemma Scope 2: params.safetensors and config.json."""
    file = path / "config.json"
    return _gemma(tensors_in(path / "params.safetensors"), path, config_in(file) if file.exists() else {})


def _gemma(tensors: Tensors, path: Path, config: Mapping[str, Any]) -> Dictionary:
    named = {name.lower(): value for name, value in tensors.items()}
    known = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold", "affine_skip_connection", "scaling_factor"}
    _refuse_unknown(named, known, path)
    if "scaling_factor" in named and not bool((named["scaling_factor"] == 1).all()):
        raise ConfigError(explain("a dictionary with a fine-tuned scaling factor is not read.", [("dictionary", path)]))
    if named["w_dec"].ndim != 2:
        rows = [("dictionary", path), ("w_dec", tuple(named["w_dec"].shape))]
        raise ConfigError(explain("a dictionary that writes to several layers is not read.", rows))
    skip = named.get("affine_skip_connection")
    hook = str(config.get("hf_hook_point_in") or config.get("hook_point") or "")
    site, layer = site_of(hook) if hook else site_of("/".join(path.parts[-3:]))
    role = "transcoder" if skip is not None or "transcoder" in str(path) else "sae"
    return Dictionary(
        named["w_enc"][None], named["w_dec"][None], named["b_enc"], named["b_dec"][None], kind="jumprelu", role=role,
        threshold=named["threshold"], skip=skip, site=site, layer=layer, source=str(path),
        model=str(config.get("model_name") or ""),
    )  # fmt: skip


def _llama_scope(path: Path) -> Dictionary:
    """Llama Scope: hyperparams.json, checkpoints/final.safetensors; inputs were scaled by one number, which is folded."""
    config = config_in(path / "hyperparams.json")
    norms = config.get("dataset_average_activation_norm") or {}
    if not norms.get("in"):
        rows = [("dictionary", path), ("dataset_average_activation_norm", norms or "missing")]
        raise ConfigError(explain("the scale of the dictionary's inputs is not in its files.", rows, "a whole copy."))
    tensors = tensors_in(path / "checkpoints" / "final.safetensors")
    known = {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
    _refuse_unknown(tensors, known, path)
    scale = config["d_model"] ** 0.5 / norms["in"]
    out = config["d_model"] ** 0.5 / norms.get("out", norms["in"])
    width = tensors["encoder.weight"].shape[0]
    site, layer = site_of(str(config.get("hook_point_in", "")))
    return Dictionary(
        tensors["encoder.weight"].T[None] * scale, tensors["decoder.weight"].T[None] / out, tensors["encoder.bias"],
        tensors["decoder.bias"][None] / out, kind="jumprelu",
        threshold=torch.full((width,), float(config["jump_relu_threshold"]) * scale), site=site, layer=layer,
        source=str(path), model=str(config.get("model_name") or ""),
    )  # fmt: skip


def _sparsify(path: Path) -> Dictionary:
    """sparsify: cfg.json, sae.safetensors, a folder a hook point; the output of layers.N is resid_post N."""
    config, tensors = config_in(path / "cfg.json"), tensors_in(path / "sae.safetensors")
    _refuse_unknown(tensors, {"encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip"}, path)
    if config.get("activation", "topk") != "topk" or config.get("signed"):
        rows = [("dictionary", path), ("activation", config.get("activation")), ("signed", config.get("signed"))]
        raise ConfigError(explain("this activation of sparsify is not read.", rows, "activation: topk"))
    transcode = bool(config.get("transcode"))
    site, layer = site_of(path.name)
    return Dictionary(
        tensors["encoder.weight"].T[None], tensors["W_dec"][None], tensors["encoder.bias"], tensors["b_dec"][None],
        kind="topk", k=int(config["k"]), role="transcoder" if transcode else "sae", centred=not transcode,
        skip=tensors["W_skip"].T if "W_skip" in tensors else None, site=site, layer=layer, source=str(path),
    )  # fmt: skip


def _dictionary_learning(tensors: Tensors, config: Mapping[str, Any], path: Path) -> Dictionary:
    """dictionary_learning and crosscoder_learning: which class it is shows in its tensors and its config."""
    trainer = config.get("trainer") or config
    name = str(trainer.get("dict_class") or config.get("architectures") or "")
    if any(part in name for part in ("Gated", "Matryoshka", "Feedback")):
        raise ConfigError(explain("a dictionary of this class is not read.", [("file", path), ("class", name)]))
    site, layer = (
        site_of(f"layers.{trainer['layer']}") if "layer" in trainer else site_of(str(trainer.get("submodule_name", "")))
    )
    shared = {"site": site, "layer": layer, "source": str(path), "model": str(trainer.get("lm_name") or "")}
    if tensors["encoder.weight"].ndim == 3:
        return _crosscoder(tensors, config, path, shared)
    known = {"encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "bias", "decoder.bias", "k", "threshold"}
    _refuse_unknown(tensors, known, path)
    encoder, decoder = tensors["encoder.weight"].T, tensors["decoder.weight"].T
    bias = tensors["encoder.bias"]
    k = int(tensors["k"]) if "k" in tensors else int(trainer.get("k") or 0)
    batch = "BatchTopK" in name or (not name and "threshold" in tensors and k > 0)
    if batch:
        threshold = tensors["threshold"].reshape(-1).expand(encoder.shape[1]).clone()
        kind: dict[str, Any] = {"kind": "batchtopk", "k": k, "threshold": threshold}
    elif k:
        kind = {"kind": "topk", "k": k}
    else:
        norms = decoder.norm(dim=1)  # as the library reads it: decoder rows of length one, codes grow by their norms
        encoder, bias, decoder, kind = encoder * norms, bias * norms, decoder / norms[:, None], {"kind": "relu"}
    shift = next(tensors[name] for name in ("b_dec", "bias", "decoder.bias") if name in tensors)
    return Dictionary(
        encoder[None], decoder[None], bias, shift[None], centred="decoder.bias" not in tensors, **kind, **shared
    )


def _crosscoder(tensors: Tensors, config: Mapping[str, Any], path: Path, shared: dict[str, Any]) -> Dictionary:
    """Two models, base then aligned; codes compete and are cut by code times the sum of the decoder's norms."""
    _refuse_unknown(
        tensors, {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", "k", "threshold"}, path
    )
    k = int(tensors["k"]) if "k" in tensors else int(config.get("k") or 0)
    width = tensors["encoder.weight"].shape[2]
    kind: dict[str, Any] = {"kind": "relu"}
    if "threshold" in tensors:
        threshold = tensors["threshold"].reshape(-1).expand(width).clone()
        kind = {"kind": "batchtopk", "k": k, "threshold": threshold, "weighted": True}
    return Dictionary(
        tensors["encoder.weight"], tensors["decoder.weight"], tensors["encoder.bias"], tensors["decoder.bias"],
        role="crosscoder", **kind, **shared,
    )  # fmt: skip


def _read_dictionary_learning(path: Path) -> Dictionary:
    return _dictionary_learning(tensors_in(path / "model.safetensors"), config_in(path / "config.json"), path)


def _jump_relu(tensors: Tensors, config: Mapping[str, Any], path: Path) -> Dictionary:
    """dictionary_learning's JumpReLU, whose tensors bear SAELens' names."""
    trainer = config.get("trainer") or config
    site, layer = site_of(f"layers.{trainer['layer']}") if "layer" in trainer else ("", -1)
    return Dictionary(
        tensors["W_enc"][None], tensors["W_dec"][None], tensors["b_enc"], tensors["b_dec"][None], kind="jumprelu",
        threshold=tensors["threshold"], site=site, layer=layer, source=str(path),
        model=str(trainer.get("lm_name") or ""),
    )  # fmt: skip


def _refuse_unknown(tensors: Tensors, known: set[str], path: Path) -> None:
    unknown = sorted(set(tensors) - known)
    if unknown:
        rows = [("dictionary", path), ("tensors", ", ".join(unknown[:6]))]
        fix = "a dictionary of this family without them; they may hold a normalisation."
        raise ConfigError(explain("a dictionary with tensors of unknown meaning is not read.", rows, fix))


def _learnt(tensors: Tensors) -> bool:
    return "encoder.weight" in tensors and "decoder.weight" in tensors


FOREIGN = (
    Found("Gemma Scope", lambda p: (p / "params.npz").exists(), _gemma_scope),
    Found("Gemma Scope 2", lambda p: (p / "params.safetensors").exists(), _gemma_scope_2),
    Found("Llama Scope", lambda p: (p / "hyperparams.json").exists() and (p / "checkpoints").is_dir(), _llama_scope),
    Found("sparsify", lambda p: (p / "cfg.json").exists() and (p / "sae.safetensors").exists(), _sparsify),
    Found(
        "dictionary_learning", lambda p: (p / "config.json").exists() and (p / "model.safetensors").exists(),
        _read_dictionary_learning, _learnt, _dictionary_learning,
    ),
    Found(
        "dictionary_learning's JumpReLU", lambda p: False, lambda p: _jump_relu({}, {}, p),
        lambda t: set(t) == {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}, _jump_relu,
    ),
)  # fmt: skip
"""The families, in the order in which a folder is tried."""
