"""What a checkpoint directory holds, read before anything is loaded: one model, an adapter, several models, other heads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from taxlens.activations.models.checkpoint import first_line, shard_map, unread_weights, weight_files
from taxlens.core.errors import ModelLoadError, explain
from taxlens.core.json_text import read_json

_WHOLE = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")
INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, sharding and activation checkpointing leave inside the names of the modules that they wrap."""

_EMBED = re.compile(r"^(.*?)((?:model\.language_model|language_model\.model|model\.decoder|model|transformer|gpt_neox|backbone)\.)?"
                    r"(embed_tokens|wte|embed_in|word_embeddings|embeddings)\.weight$")  # fmt: skip
_VALUE_HEAD = re.compile(r"^(v_head|value_head|vhead|critic_head|value_model_head)\.")
_OUTPUT_HEAD = re.compile(r"^(language_model\.)?(lm_head|embed_out|output|transformer\.lm_head|head)\.weight$")
_REWARD_HEAD = re.compile(r"^(score|reward_head|regression_head|classifier|rank_head)\.")


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found in a checkpoint directory.

    Args:
        config: config.json.
        files: the safetensors files that will be read; none for GGUF.
        wrapper: the prefix that every weight name carries beyond the architecture's own; blank for none.
        wrapped_inside: whether wrappers left their names inside weight names too.
        left_aside: weights of a value or reward head, which the language model has no place for.
        notes: sentences that a reader of results must know.
    """

    config: dict[str, Any]
    files: tuple[Path, ...]
    wrapper: str = ""
    wrapped_inside: bool = False
    left_aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def look(directory: Path, *, gguf: bool = False) -> Contents:
    """Return what a directory holds, if it is one causal language model that needs no code of its own.

    Args:
        directory: a checkpoint's directory.
        gguf: its weights are a GGUF file, which has its own config.

    Raises:
        ModelLoadError: an adapter alone, several models, an encoder-decoder, a reward model, an architecture that is
            known to the checkpoint's own code only, or weight files that cannot be read.
    """
    if gguf:
        return Contents({}, ())
    config = read_config(directory)
    check_architecture(directory, config)
    check_sizes(directory, config)
    files = tuple(weight_files(directory))
    plain = not (config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config"))
    held = {path: _names(path, plain=plain) for path in files}
    _check_shards(directory, held)
    names = [name for found in held.values() for name in found]
    wrapper, inside = wrapper_of(names), any(INSIDE.search(name) for name in names)
    bare = [INSIDE.sub("", name).removeprefix(wrapper) for name in names]
    _check_head(directory, config, bare)
    aside = tuple(name for name in bare if _VALUE_HEAD.match(name) or _REWARD_HEAD.match(name))
    notes = [unread_weights(directory), _own_code(directory, config)]
    if wrapper or inside:
        left = next((n.removesuffix(b) for n, b in zip(names, bare, strict=True) if n != b and n.endswith(b)), "")
        left = left or next(match[0] for name in names if (match := INSIDE.search(name)))
        notes.append(f"weight names of {directory.name} carry {left!r}, which a wrapper left there: it is taken off")
    if aside:
        notes.append(f"{directory.name} has a value or reward head ({aside[0]}): the language model under it is read")
    return Contents(config, files, wrapper, inside, aside, tuple(note for note in notes if note))


def _check_shards(directory: Path, held: dict[Path, list[str]]) -> None:
    """Refuse shards of which the index says something else than they hold: they are of two checkpoints."""
    said, seen = shard_map(directory), {}
    for path, names in held.items():
        for name in names:
            other = seen.setdefault(name, path.name)
            where = other if other != path.name else said.get(name, path.name)
            if where != path.name:
                rows = [
                    ("directory", directory),
                    ("tensor", name),
                    ("in", path.name),
                    ("and" if other == where else "index says", where),
                ]
                fix = "copy the whole checkpoint again, into an empty directory."
                raise ModelLoadError(explain("the shards are not of one checkpoint.", rows, fix))


def _own_code(directory: Path, config: dict[str, Any]) -> str:
    named = config.get("auto_map") or {}
    if not any(key.startswith("AutoModel") for key in named):
        return ""
    return f"{directory.name} names code of its own, which is never run: it is read as transformers' own {config['model_type']}"


def read_config(directory: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json.

    Raises:
        ModelLoadError: there is none, or it is no JSON; an adapter and several models are named as what they are.
    """
    path = directory / "config.json"
    adapter = (directory / "adapter_config.json").is_file()
    if path.is_file() and adapter:
        rows = [("directory", directory), ("found", "config.json and adapter_config.json")]
        fix = "move one of the two elsewhere: which of them is meant is not said."
        raise ModelLoadError(explain("a whole model and an adapter lie in one directory.", rows, fix))
    if not path.is_file():
        raise ModelLoadError(_without_config(directory, adapter))
    found = read_json(path, title="config.json cannot be read.", error=ModelLoadError, fix="copy it again.")
    if not isinstance(found, dict):
        raise ModelLoadError(explain("config.json is no table of keys.", [("file", path)], "copy it again."))
    return found


def _without_config(directory: Path, adapter: bool) -> str:
    if adapter:
        rows = [("directory", directory), ("found", "adapter_config.json")]
        return explain(
            "this is an adapter, not a whole model.", rows, "pair.base: ITS BASE, pair.adapter: THIS DIRECTORY"
        )
    inside = sorted(path.parent.name for path in directory.glob("*/config.json"))
    if len(inside) > 1:
        rows = [("directory", directory), ("models", f"{len(inside)}: {', '.join(inside[:8])}")]
        fix = f"give one of them: {directory / inside[-1]}"
        return explain("this directory holds several models.", rows, fix)
    rows = [("directory", directory), ("wanted", "config.json")]
    fix = f"{directory / inside[0]}" if inside else "give the directory that save_pretrained wrote."
    return explain("no model here.", rows, fix)


def check_architecture(directory: Path, config: dict[str, Any]) -> None:
    """Refuse what is no causal language model that transformers itself knows.

    Raises:
        ModelLoadError: in one line what it is.
    """
    kind = config.get("model_type")
    where: list[tuple[str, object]] = [("directory", directory), ("model_type", kind or "missing")]
    if kind not in CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            where.append(("its code", ", ".join(sorted(str(v) for v in config["auto_map"].values()))[:120]))
            fix = "convert it to an architecture that transformers has; code of a checkpoint is never run."
            raise ModelLoadError(explain("this checkpoint needs code of its own.", where, fix))
        fix = "check model_type, or update transformers."
        raise ModelLoadError(explain("transformers does not know this architecture.", where, fix))
    if config.get("is_encoder_decoder", kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        fix = "give a decoder-only language model."
        raise ModelLoadError(explain("an encoder-decoder is not served.", where, fix))
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        what = (
            "an encoder-decoder" if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else "no causal language model"
        )
        raise ModelLoadError(explain(f"{kind} is {what}.", where, "give a decoder-only language model."))


_SIZES = {
    "num_hidden_layers": 4096, "n_layer": 4096, "num_layers": 4096, "hidden_size": 2**20, "n_embd": 2**20,
    "intermediate_size": 2**22, "num_attention_heads": 2**14, "n_head": 2**14, "num_key_value_heads": 2**14,
    "head_dim": 2**14, "vocab_size": 2**26, "max_position_embeddings": 2**31, "n_positions": 2**31,
    "num_experts": 2**14, "num_local_experts": 2**14, "sliding_window": 2**31,
}  # fmt: skip
"""Keys that size a model, with the largest value that is believed; none of them may be 0 or less."""
_MAY_BE_NONE = (
    "sliding_window",
    "head_dim",
    "num_key_value_heads",
    "num_experts",
    "num_local_experts",
    "intermediate_size",
)


def check_sizes(directory: Path, config: dict[str, Any]) -> None:
    """Refuse a config whose sizes no model has: before memory is asked for, or a length of 0 is taken for no limit.

    Raises:
        ModelLoadError: naming the key, its value and what is believed.
    """
    for part in (config, config.get("text_config")):
        for key, most in _SIZES.items() if isinstance(part, dict) else ():
            value = part.get(key, 1)
            if value is None or (key in _MAY_BE_NONE and value == 0):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                if isinstance(value, list):
                    continue  # one a layer, which the architecture checks
                rows = [("directory", directory), ("key", key), ("got", repr(value)[:60]), ("must be", f"1 to {most}")]
                raise ModelLoadError(explain("config.json names a size that no model has.", rows, "copy it again."))


def _check_head(directory: Path, config: dict[str, Any], names: Sequence[str]) -> None:
    head = next((name for name in names if _REWARD_HEAD.match(name)), None)
    named = [str(name) for name in config.get("architectures") or ()]
    other = next(
        (name for name in named if name.endswith(("Classification", "RewardModel", "QuestionAnswering"))), None
    )
    words = any(_OUTPUT_HEAD.match(name) for name in names)
    if other or (head and not words):
        rows = [("directory", directory), ("architecture", other or ", ".join(named)), ("head", head or "missing")]
        fix = "give the policy model: a reward or classification model scores texts and predicts no words."
        raise ModelLoadError(explain("this checkpoint has no output head over words.", rows, fix))


def wrapper_of(names: Sequence[str]) -> str:
    """Return what stands before every weight's name where a wrapper put it: "module.", "base_model.model.", "actor.".

    It is what precedes the backbone in the name of the input embedding, if every other weight has it too; a value head
    may stand outside it.
    """
    inner = [INSIDE.sub("", name) for name in names if not (_VALUE_HEAD.match(name) or _REWARD_HEAD.match(name))]
    found = [match[1] for name in inner if (match := _EMBED.match(name))]
    prefix = min(found, key=len, default="")
    return prefix if prefix and all(name.startswith(prefix) for name in inner) else ""


def renaming(contents: Contents) -> dict[str, str]:
    """Patterns to take off weight names, and what to put there, as transformers' `key_mapping`."""
    found = {"^" + re.escape(contents.wrapper): ""} if contents.wrapper else {}
    return found | ({INSIDE.pattern: ""} if contents.wrapped_inside else {})


def _check_numbers(path: Path, tensors: Any, names: Sequence[str]) -> None:
    """Refuse weights that are whole numbers where the config says of no quantisation."""
    for name in names:
        if name.endswith((".weight", "_proj")) and (kind := str(tensors.get_slice(name).get_dtype())) in _WHOLE:
            rows = [("file", path), ("tensor", name), ("type", kind)]
            fix = "give floating-point weights, or the config with its quantization_config."
            raise ModelLoadError(explain("a weight holds whole numbers.", rows, fix))


def _names(path: Path, *, plain: bool) -> list[str]:
    try:
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            _check_numbers(path, tensors, names) if plain else None
            return names
    except (SafetensorError, OSError) as error:
        partial = sorted(p.name for pattern in ("*.incomplete", "*.tmp", "*.part") for p in path.parent.glob(pattern))
        rows: list[tuple[str, object]] = [("file", path), ("bytes", path.stat().st_size), ("reason", first_line(error))]
        rows += [("unfinished", ", ".join(partial[:3]))] if partial else []
        fix = "wait until it is written, or copy it again: the file is truncated."
        raise ModelLoadError(explain("a weight file cannot be read.", rows, fix)) from error
