"""Dictionaries on disk: written in SAELens' form, read from it and from the forms of other families."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.foreign_formats import (
    COPY,
    FOREIGN,
    UNREADABLE,
    Found,
    config_in,
    site_of,
    tensors_in,
)
from taxlens.core.artifacts import sha256_file, sha256_json, write_json
from taxlens.core.errors import CheckError, ConfigError, explain, one_of, understood
from taxlens.core.plain_files import write_tensors

WEIGHTS = "sae_weights.safetensors"
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_NORMAL = {
    "none": "none", "constant_norm_rescale": "token_norm", "layer_norm": "layer_norm",
}  # fmt: skip
_ARCHITECTURES = ("standard", "jumprelu", "topk", "transcoder", "skip_transcoder", "jumprelu_transcoder")
_BRIDGE_SITES = {
    "hook_resid_pre": "resid_pre", "hook_resid_mid": "resid_mid", "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out", "attn.hook_z": "head_z", "mlp.hook_post": "mlp_post",
}  # fmt: skip


def read_dictionary(folder: str | Path) -> Dictionary:
    """Return the dictionary in a folder, whichever of the served families wrote it.

    SAELens (6 and before), Gemma Scope (.npz, 2: .safetensors), Llama Scope, sparsify (also transcoders),
    dictionary_learning and crosscoder_learning where they were saved as safetensors. Nothing is unpickled.

    Args:
        folder: the folder that holds the weights and their config.

    Raises:
        ConfigError: nothing there is a dictionary, a pickle, or a normalisation whose scale is not in the files.
        CheckError: weights that are not finite, or files that taxlens wrote and that were changed since.
    """
    path = Path(folder)
    with understood(UNREADABLE, file=path, fix=COPY, error=ConfigError):
        return _read(path)


def _read(path: Path) -> Dictionary:
    if path.is_file():
        path = path.parent if path.suffix not in PICKLES else path
    if not path.exists():
        raise ConfigError(explain("there is no such dictionary.", [("folder", path)], "check the path."))
    if (path / "cfg.json").exists() and (path / WEIGHTS).exists():
        return _read_sae_lens(path)
    for found in FOREIGN:
        if found.recognises(path):
            return found.read(path)
    pickles = [path] if path.is_file() else [p for p in sorted(path.iterdir()) if p.suffix in PICKLES]
    if pickles:
        fix = f"taxlens features convert {pickles[0]} --out FOLDER"
        raise ConfigError(explain("a pickle is not read.", [("file", pickles[0])], fix))
    rows = [("folder", path), ("holds", ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing")]
    fix = f"a folder with cfg.json and {WEIGHTS}, or of {', '.join(one.name for one in FOREIGN)}"
    raise ConfigError(explain("no dictionary of a known form.", rows, fix))


def write_dictionary(found: Dictionary, folder: str | Path, *, record: dict[str, Any] | None = None) -> Path:
    """Write a dictionary as SAELens 6 does (cfg.json, sae_weights.safetensors) and return its folder.

    A dictionary of one model opens in SAELens; a crosscoder keeps its leading axis and opens here alone. Batch top-k
    is written as jumprelu, by its threshold, as SAELens itself does.

    Args:
        found: the dictionary.
        folder: made if missing.
        record: facts to keep beside it (recipe, corpus, hash of the models), under `taxlens` in the metadata.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    architecture = {"relu": "standard", "topk": "topk"}.get(found.kind, "jumprelu")
    if found.role == "transcoder":
        architecture = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}.get(architecture, architecture)
        architecture = "skip_transcoder" if found.skip is not None else architecture
    one = found.role != "crosscoder"
    tensors = {"W_enc": found.encoder, "W_dec": found.decoder, "b_dec": found.decoder_bias}
    tensors = {name: value[0] if one else value for name, value in tensors.items()} | {"b_enc": found.encoder_bias}
    if found.threshold is not None:
        tensors["threshold"] = found.threshold
    if found.skip is not None:
        tensors["W_skip"] = found.skip.T
    ours = {
        "role": found.role, "kind": found.kind, "k": found.k, "site": found.site, "layer": found.layer,
        "weighted": found.weighted, "normalisation": found.normalisation, "scale": found.scale,
        "skip": found.skip is not None,
    }  # fmt: skip
    hook = next((name for name, site in _BRIDGE_SITES.items() if site == found.site), "")
    config: dict[str, Any] = {
        "architecture": architecture, "d_in": found.d_in, "d_sae": found.width, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": found.centred, "reshape_activations": "none",
        "normalize_activations": {v: k for k, v in _NORMAL.items()}.get(found.normalisation, "none"),
        "metadata": {
            "sae_lens_version": "6.0.0", "model_name": found.model,
            "hook_name": f"blocks.{found.layer}.{hook}" if hook else "",
        },
    }  # fmt: skip
    if found.kind == "topk":
        config |= {"k": found.k, "rescale_acts_by_decoder_norm": found.weighted}
    if found.role == "transcoder":
        config["d_out"] = found.d_out
    write_tensors(path / WEIGHTS, {name: value.float().contiguous().clone() for name, value in tensors.items()})
    ours["weights_sha256"] = sha256_file(path / WEIGHTS)
    config["metadata"]["taxlens"] = ours | (record or {})
    write_json(config | {"metadata": config["metadata"] | {"seal": _seal(config)}}, path / "cfg.json")
    return path


def read_record(folder: str | Path) -> dict[str, Any]:
    """What `write_dictionary` kept beside a dictionary; empty for one of another origin."""
    path = Path(folder) / "cfg.json"
    if not path.exists():
        return {}
    with understood(UNREADABLE, file=path, fix=COPY, error=ConfigError):
        metadata = config_in(path).get("metadata") or {}
        return dict(metadata.get("taxlens") or {})


def convert(file: str | Path, out: str | Path) -> Path:
    """Write the dictionary in a pickled file (.pt) as SAELens does and return its folder.

    The file is opened with `torch.load(weights_only=True)`, which runs no code of the file's; its config is the
    config.json or cfg.json beside it.

    Args:
        file: of dictionary_learning, crosscoder_learning or SAELens, saved by `torch.save`.
        out: the folder to write.

    Raises:
        ConfigError: the file is missing, holds more than tensors, or nothing of a known form.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(explain("there is no such file.", [("file", path)], "check the path."))
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        rows = [("file", path), ("said", str(error).splitlines()[0][:100])]
        fix = "save its state dict alone (tensors by name)."
        raise ConfigError(explain("a pickle that holds more than tensors is not opened.", rows, fix)) from error
    held = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ConfigError(explain("the file is no state dict.", [("file", path)], "save tensors by name."))
    configs = [p for p in (path.parent / "config.json", path.parent / "cfg.json") if p.exists()]
    config = config_in(configs[0]) if configs else {}
    tensors = {name: value.float() for name, value in held.items()}
    made = None
    with understood(UNREADABLE, file=path, fix="another file, or its config beside it.", error=ConfigError):
        for found in (one for one in FOREIGN if one.from_tensors is not None and one.owns(tensors)):
            made = made or found.from_tensors(tensors, config, path)  # type: ignore[misc]
        if made is None and {"W_enc", "W_dec", "b_dec"} <= set(tensors):
            made = _from_sae_lens(tensors, config, path)
    if made is not None:
        return write_dictionary(made, out)
    rows = [("file", path), ("tensors", ", ".join(sorted(tensors)[:8]))]
    raise ConfigError(explain("no dictionary of a known form.", rows, "W_enc, W_dec, b_enc, b_dec."))


def _read_sae_lens(path: Path) -> Dictionary:
    config, tensors = config_in(path / "cfg.json"), tensors_in(path / WEIGHTS)
    metadata = config.get("metadata") or {}
    if "seal" in metadata:
        whole = metadata["seal"] == _seal(config)
        if not whole or (metadata.get("taxlens") or {}).get("weights_sha256") != sha256_file(path / WEIGHTS):
            rows = [("dictionary", path), ("changed", "the weights" if whole else "cfg.json")]
            raise CheckError(explain("a dictionary is not as it was written.", rows, COPY))
    return _from_sae_lens(tensors, config, path)


def _seal(config: dict[str, Any]) -> str:
    """The hash of a config's content, without the seal that it bears."""
    metadata = {key: value for key, value in config["metadata"].items() if key != "seal"}
    return sha256_json(json.loads(json.dumps(config | {"metadata": metadata})))


def _from_sae_lens(tensors: dict[str, torch.Tensor], config: dict[str, Any], path: Path) -> Dictionary:
    """SAELens' config in its form of 6.0 and before, whose hook name stands at the top level."""
    metadata = config.get("metadata") or {}
    ours = metadata.get("taxlens") or {}
    old = "metadata" not in config
    architecture = config.get("architecture") or "standard"
    k = int(config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or ours.get("k") or 0)
    if config.get("activation_fn_str", config.get("activation_fn")) == "topk":
        architecture = "topk"
    one_of(architecture, _ARCHITECTURES, what="architecture of a SAELens dictionary", error=ConfigError)
    if (config.get("reshape_activations") or "none") != "none":
        rows = [("dictionary", path), ("reshape_activations", config["reshape_activations"])]
        raise ConfigError(explain("a dictionary of reshaped heads is not read.", rows, "one of the residual stream."))
    if "scaling_factor" in tensors and not bool((tensors["scaling_factor"] == 1).all()):
        raise ConfigError(explain("a dictionary with a fine-tuned scaling factor is not read.", [("dictionary", path)]))
    weights = {name: tensors[name].float() for name in ("W_enc", "W_dec", "b_dec")}
    bias = tensors.get("b_enc", torch.zeros(weights["W_enc"].shape[-1])).float()
    one = weights["W_enc"].ndim == 2
    encoder, decoder, shift = (value[None] if one else value for value in weights.values())
    weighted = bool(ours.get("weighted", False))
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        norms = decoder[0].norm(dim=-1)  # folded in, as SAELens does: codes keep their numbers
        encoder, bias, decoder, weighted = encoder * norms, bias * norms, decoder / norms[:, None], False
    site, layer = ours.get("site", ""), int(ours.get("layer", -1))
    if not ours:
        hook = str(metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point") or "")
        site, layer = _bridge_site(hook)
    kind = {"standard": "relu", "transcoder": "relu", "skip_transcoder": "relu", "topk": "topk"}
    threshold = tensors["threshold"].float() if "threshold" in tensors else None
    role = ours.get("role") or ("transcoder" if "transcoder" in architecture else "sae")
    return Dictionary(
        encoder, decoder, bias, shift,
        kind=ours.get("kind") or kind.get(architecture, "jumprelu"),
        role=role, threshold=threshold, k=k, weighted=weighted,
        centred=bool(config.get("apply_b_dec_to_input", old)),
        normalisation=_normalisation(config.get("normalize_activations"), ours, path),
        scale=float(ours.get("scale", 1.0)),
        skip=tensors["W_skip"].float().T.contiguous() if "W_skip" in tensors else None,
        site=site, layer=layer, source=str(path),
        model=str(metadata.get("model_name") or config.get("model_name") or ""),
    )  # fmt: skip


def _normalisation(said: Any, ours: dict[str, Any], path: Path) -> str:
    if ours.get("normalisation"):
        return str(ours["normalisation"])
    name = "none" if said in (None, False, "none") else str(said)
    if name not in _NORMAL:
        rows = [("dictionary", path), ("normalize_activations", said)]
        fix = "fold the scale into the weights (SAELens: fold_activation_norm_scaling_factor) and save it again."
        raise ConfigError(explain("the scale of the dictionary's inputs is not in its files.", rows, fix))
    return _NORMAL[name]


def _bridge_site(hook: str) -> tuple[str, int]:
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found and found.group(2) in _BRIDGE_SITES:
        return _BRIDGE_SITES[found.group(2)], int(found.group(1))
    return site_of(hook)


__all__ = ["Found", "convert", "read_dictionary", "read_record", "write_dictionary"]
