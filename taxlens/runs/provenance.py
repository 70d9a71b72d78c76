"""What a stage of a run was made from: settings, checkpoints, items, software; and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taxlens.config.schema import Config
from taxlens.core.artifacts import sha256_file, sha256_text
from taxlens.core.errors import TaxlensError
from taxlens.inputs.resolve import resolve_adapter, resolve_model
from taxlens.stages import STAGES

VIEWS = ("figures", "report")
"""Stages that only show what the others found: redone whenever that is another, and never a reason to refuse."""
COMMON = ("pair", "suites", "templates", "chat_template", "asking", "seed")
"""Keys of the config that every other stage depends on."""
NOT_COMPARED = ("pair.device",)
"""Where something was computed is recorded, and is no other setting."""
SOFTWARE = (
    "python",
    "taxlens",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "scipy",
    "h5py",
    "pandas",
    "peft",
)
"""Packages whose version the numbers depend on."""


def section_of(config: Config | Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return the settings that a stage depends on, every default filled in, by dotted key.

    Args:
        config: the config, or its plain values.
        stage: name of the stage.
    """
    values = config if isinstance(config, Mapping) else json.loads(config.model_dump_json())
    declared = next((one for one in STAGES if one.name == stage), None)
    if declared is None or declared.reads is None:
        wanted = tuple(key for key in values if key not in ("name", "stages", "figures", "executor"))
    else:
        own = (declared.key,) if declared.key else ()
        wanted = (*declared.reads, *own, *(() if stage in VIEWS else COMMON))
    return {
        key: value
        for key, value in flattened(values).items()
        if any(key == one or key.startswith(f"{one}.") for one in wanted)
        and not any(key == one or key.startswith(f"{one}.") for one in NOT_COMPARED)
    }


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key; suites by their names.

    Example:
        >>> flattened({"tax": {"bootstrap": 300}, "suites": [{"name": "facts", "file": "f.jsonl"}]})
        {'tax.bootstrap': 300, 'suites.facts.name': 'facts', 'suites.facts.file': 'f.jsonl'}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "suites" and isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value):
            value = {str(one.get("name")): one for one in value}
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def pair_files(config: Config, root: Path) -> dict[str, str] | None:
    """Return the hash of every checkpoint, adapter and template that the config names, or None where one is not here.

    A checkpoint's hash covers weights, config, tokenizer and chat template, file by file.

    Args:
        config: the run's config.
        root: the folder that its relative paths start from.
    """
    from taxlens.activations.models.checkpoint import checkpoint_directory, checkpoint_sha256

    section = config.pair
    named = {"base": (section.base,), "aligned": section.aligned or (), "adapter": section.adapter or ()}
    found: dict[str, str] = {}
    try:
        for key, value in named.items():
            names = (value,) if isinstance(value, str) else value
            for number, name in enumerate(names):
                place = resolve_adapter(name, root) if key == "adapter" else resolve_model(name, root)
                directory = checkpoint_directory(
                    place, revision=None if key == "adapter" else section.revision, cached=True
                )
                label = key if number == len(names) - 1 else f"{key} {number + 1}"
                found[label] = checkpoint_sha256(directory, gguf=section.gguf)
        if config.chat_template not in ("own", "aligned"):
            found["chat template"] = sha256_file(config.chat_template)
    except (TaxlensError, OSError):
        return None
    return found


def suite_files(config: Config, suites: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of every suite's items, and of what it is for."""
    kinds = {section.name: section.kind for section in config.suites}
    return {name: sha256_text(f"{suite.sha256} {kinds.get(name)}") for name, suite in suites.items()}


def settings_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every key that differs, as ("tax.bootstrap", "300 -> 2000") pairs, in the order of the keys."""
    keys = [*before, *(key for key in after if key not in before)]
    return [
        (key, f"{_short(before.get(key))} -> {_short(after.get(key))}")
        for key in keys
        if _plain(before.get(key)) != _plain(after.get(key))
    ]


def made_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what differs between two records of what a stage was made from: settings, pair, suites, software.

    Checkpoints or items that are not here now, or were not then, cannot be compared, and are passed over where the
    stage would need neither.
    """
    rows = settings_differences(before.get("section") or {}, after.get("section") or {})
    for key, word in (("pair", "pair"), ("suites", "suite")):
        one, two = before.get(key), after.get(key)
        if one is not None and two is not None:
            rows += [(f"{word} {name}", told) for name, told in _hash_rows(one, two)]
    software = [{k: v for k, v in (made.get("versions") or {}).items() if k in SOFTWARE} for made in (before, after)]
    return rows + [(f"version of {name}", told) for name, told in settings_differences(*software)]


def _hash_rows(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    names = list(dict.fromkeys([*before, *after]))
    for name in names:
        one, two = before.get(name), after.get(name)
        if one != two:
            yield name, f"sha256 {(one or 'none')[:12]} -> {(two or 'none')[:12]}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text[1:-1] if isinstance(value, str) else text
    return text if len(text) <= 60 else f"{text[:57]}..."
