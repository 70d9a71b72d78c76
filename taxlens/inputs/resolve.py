"""What a config's names stand for: embedded worlds, paths beside the config, hub ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens import suites
from taxlens.activations.items.items import Suite, read_suite
from taxlens.core.errors import ConfigError, explain
from taxlens.demo import catalogue

if TYPE_CHECKING:
    from taxlens.config.schema import SuiteSection


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


def section_suite(section: SuiteSection, root: Path | str) -> Suite:
    """Return the suite that a section of the config names, every option of its format included."""
    names = ("group_by", "ask", "letters", "first_answer", "fields")
    options: dict[str, Any] = {name: getattr(section, name) for name in names}
    options["skip"] = tuple(what for what in section.skip if what != "too_long")  # that is decided with the models
    return resolve_suite(section.name, section.file, kind=section.kind, root=root, shape=section.format, **options)


def resolve_suite(name: str, file: str, *, kind: str, root: Path | str, shape: str = "items", **options: Any) -> Suite:
    """Return the suite in a file beside the config, or an embedded one (`demo:facts`, `suite:capitals`).

    Args:
        name: what tables call it.
        file: what the config says.
        kind: "capability" or "benefit".
        root: the folder that relative paths start from.
        shape: "items", or how a published benchmark is laid out (`taxlens.suites.formats.SHAPES`).
        options: of that shape: ``group_by``, ``ask``, ``letters``.

    Raises:
        ConfigError: if the file is missing, or an option does not go with the shape.
        ItemError: if an item in it cannot be used.
    """
    skip = tuple(options.get("skip") or ())
    given = [name for name, value in options.items() if value not in (None, (), {}, []) and value is not False]
    given = [name for name in given if name != "skip"]
    embedded = file.startswith((suites.PREFIX, catalogue.PREFIX))
    if given and shape == "items":
        rows = [("suite", name), ("given", ", ".join(given)), ("format", "items")]
        raise ConfigError(explain("items are taken as they are written.", rows, "format: questions, or leave them out"))
    if embedded and shape != "items":
        raise ConfigError(
            explain("an embedded suite has a format of its own.", [("suite", name), ("format", shape)], "format: items")
        )
    if file.startswith(suites.PREFIX):
        return suites.load(file, rename=name, kind=kind)
    path = catalogue.resolve_suite(file) if embedded else Path(root, file).expanduser()
    if not path.exists():
        rows = [("suite", name), ("given", file), ("looked for", path)]
        raise ConfigError(
            explain("the suite's file does not exist.", rows, "a path relative to the config, or demo:NAME")
        )
    if shape == "items":
        return read_suite(path, name=name, kind=kind, skip=skip)
    from taxlens.suites.formats import read_shape

    return read_shape(path, shape=shape, name=name, kind=kind, **options)
