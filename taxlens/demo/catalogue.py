"""Where the embedded models, suites and truths lie: `demo:NAME` to a path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taxlens.core.errors import ConfigError, one_of

PREFIX = "demo:"
DATA = Path(__file__).parent / "data"


def model_names() -> list[str]:
    """Names of the embedded models, the base first.

    Example:
        >>> model_names()[0]
        'demo:base'
    """
    found = sorted(p.parent.name for p in (DATA / "models").glob("*/config.json"))
    return [PREFIX + name for name in sorted(found, key=lambda name: (name != "base", name))]


def suite_names() -> list[str]:
    """Names of the embedded suites.

    Example:
        >>> "demo:facts" in suite_names()
        True
    """
    return [PREFIX + p.stem for p in sorted((DATA / "suites").glob("*.jsonl"))]


def resolve(name: str) -> Path:
    """The directory of an embedded model, in the format that `from_pretrained` reads.

    Args:
        name: `demo:base`, `demo:planted`, ...; see `model_names()`.

    Returns:
        A directory with config, weights (safetensors) and tokenizer.

    Raises:
        ConfigError: there is no such embedded model; lists those that there are.

    Example:
        >>> resolve("demo:base").name
        'base'
    """
    one_of(name, model_names(), what="embedded model", error=ConfigError)
    return DATA / "models" / name.removeprefix(PREFIX)


def resolve_suite(name: str) -> Path:
    """The file of an embedded suite: JSON lines, one item a line.

    The last choice of every item is the refusal. In `demo:harm`, the benefit suite, it is also the gold one,
    so that more refusing of harm shows as a negative tax; everywhere else the gold choice is the true answer.

    Args:
        name: `demo:facts`, `demo:addition`, ...; see `suite_names()`.

    Returns:
        Path of the file.

    Raises:
        ConfigError: there is no such embedded suite; lists those that there are.

    Example:
        >>> resolve_suite("demo:facts").name
        'facts.jsonl'
    """
    one_of(name, suite_names(), what="embedded suite", error=ConfigError)
    return DATA / "suites" / f"{name.removeprefix(PREFIX)}.jsonl"


def truth(name: str) -> dict[str, Any]:
    """What is known by construction of an embedded aligned model.

    Args:
        name: an embedded model with a truth file, for instance `demo:planted`.

    Returns:
        The truth: taxed suite, components of harm, benefit and decoy, norms, taxes of each part alone, and how
        it was made.

    Raises:
        ConfigError: the model has no truth file; lists those that have one.

    Example:
        >>> truth("demo:planted")["taxed"]
        ['facts']
    """
    known = [PREFIX + p.stem for p in sorted((DATA / "truth").glob("*.json"))]
    one_of(name, known, what="embedded model with a known truth", error=ConfigError)
    return json.loads((DATA / "truth" / f"{name.removeprefix(PREFIX)}.json").read_text(encoding="utf-8"))


def demo_config(pair: str) -> tuple[Path, list[str]]:
    """The config of the whole job on an embedded pair, and the overrides that choose the pair.

    Args:
        pair: the aligned model's name without prefix, for instance "planted".

    Returns:
        Path of the config, and `key=value` overrides of it.

    Raises:
        ConfigError: there is no such pair; lists those that there are.

    Example:
        >>> demo_config("planted")[1]
        ['pair.aligned=demo:planted', 'name=demo-planted']
    """
    pairs = [name.removeprefix(PREFIX) for name in model_names() if name != "demo:base"]
    one_of(pair, pairs, what="embedded pair", error=ConfigError)
    return DATA / "demo.yaml", [f"pair.aligned={PREFIX}{pair}", f"name=demo-{pair}"]
