"""YAML as people expect it: 1e-3 is a number, `no` is a word, a repeated key is an error, lines are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from taxlens.core.errors import ConfigError, explain

MOST_CHARACTERS = 1 << 20
"""Longest YAML text that is read."""
MOST_DEPTH = 40
"""Deepest nesting of lists and mappings."""
MOST_NODES = 20_000
"""Most values of a text, its aliases written out."""


class _Loader(yaml.SafeLoader):
    """Safe loader with the scalars of YAML 1.2 (true and false alone are booleans; 1e-3 is a float)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in rules if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


def _construct_mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            line = key_node.start_mark.line + 1
            raise ConfigError(explain("a key is a list or a mapping.", [("line", line)], "a word as key"))
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(explain(f"key {key!r} stands twice.", [("lines", f"{seen[key]} and {line}")], "keep one"))
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda l, n: _construct_mapping(l, n, deep=True)
)


def parse_yaml(text: str, *, where: str = "<text>") -> Any:
    """Return the value of a YAML text, read safely.

    Raises:
        ConfigError: if the text is not YAML or repeats a key.

    Example:
        >>> parse_yaml("rate: 1e-3\\nname: no")
        {'rate': 0.001, 'name': 'no'}
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:500]
    except RecursionError:
        reason = f"nested deeper than {MOST_DEPTH}"
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:500]
    raise ConfigError(explain(f"{where[:200]} is not readable YAML.", [("reason", reason)]))


def _check_size(text: str) -> None:
    """Refuse a text that is too long, nests too deep, or grows out of all proportion when its aliases are written out."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text)} characters, at most {MOST_CHARACTERS} are read")
    whole = yaml.compose(text, Loader=_Loader)
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise ValueError(f"nested deeper than {MOST_DEPTH}")
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = MOST_NODES  # a node inside itself has no end
        inside = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        sizes[id(node)] = found = 1 + sum(size(part, depth + 1) for part in inside)
        if found > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} values when its aliases are written out")
        return found

    size(whole, 0)


def read_yaml(path: Path | str) -> Any:
    """Return the value in a YAML file.

    Raises:
        ConfigError: if the file is missing, not UTF-8 or not YAML.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.as_posix() for p in path.parent.glob("*.y*ml"))[:5] if path.parent.is_dir() else []
        rows = [("path", path), ("configs beside it", ", ".join(near) or "none")]
        title = "the config file does not exist."
        if path.suffix not in (".yaml", ".yml"):
            title = "there is no run folder and no config file of this name."
            held = path.parent.glob("*/run.json") if path.parent.is_dir() else []
            rows = [
                *rows,
                ("run folders beside it", ", ".join(sorted(p.parent.as_posix() for p in held)[:5]) or "none"),
            ]
        raise ConfigError(explain(title, rows)) from None
    except (ValueError, OSError) as error:
        raise ConfigError(explain("the config file cannot be read.", [("path", path), ("reason", error)])) from error
    return parse_yaml(text, where=str(path))


def line_of(path: Path | str, keys: Sequence[str | int]) -> int | None:
    """Return the line (from 1) where the value at `keys` stands in a YAML file, or of its nearest parent."""
    node = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if str(key) not in pairs:
                break
            key_node, node = pairs[str(key)]
            line = key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
