"""What a config's names stand for: embedded worlds, paths beside the config, hub ids."""

from __future__ import annotations

from pathlib import Path

from taxlens import suites
from taxlens.activations.items import Suite, read_suite
from taxlens.core.errors import ConfigError, explain
from taxlens.demo import catalogue


def resolve_model(text: str, root: Path | str) -> str:
    """Return the directory or hub id that a model's name stands for.

    `demo:NAME` is an embedded checkpoint; a folder under `root` (or absolute) is that folder; `owner/name`
    without such a folder is a hub id, which the loader then asks the hub for.

    Args:
        text: what the config says.
        root: the folder that relative paths start from.

    Raises:
        ConfigError: if it is written as a path and no folder is there.
    """
    if text.startswith("demo:"):
        return str(catalogue.resolve(text))
    path = Path(root, text).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if text.startswith((".", "/", "~")) or text.count("/") != 1:
        rows = [("given", text), ("looked for", path)]
        raise ConfigError(
            explain("the model folder does not exist.", rows, "a folder, a hub id owner/name, or demo:NAME")
        )
    return text


def resolve_adapter(text: str, root: Path | str) -> str:
    """Return the folder of a PEFT adapter, or its hub id.

    Raises:
        ConfigError: if it is written as a path and no folder is there.
    """
    return resolve_model(text, root)


def resolve_suite(name: str, file: str, *, kind: str, root: Path | str) -> Suite:
    """Return the suite in a file beside the config, or an embedded one (`demo:facts`, `suite:capitals`).

    Raises:
        ConfigError: if the file is missing.
        ItemError: if an item in it cannot be used.
    """
    if file.startswith(suites.PREFIX):
        return suites.load(file, rename=name, kind=kind)
    path = catalogue.resolve_suite(file) if file.startswith("demo:") else Path(root, file).expanduser()
    if not path.is_file():
        rows = [("suite", name), ("given", file), ("looked for", path)]
        raise ConfigError(
            explain("the suite's file does not exist.", rows, "a path relative to the config, or demo:NAME")
        )
    return read_suite(path, name=name, kind=kind)
