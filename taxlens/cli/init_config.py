"""A config for a new pair: what must be said as it stands, and every option with its default as a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from taxlens.config.schema import Config, build_config
from taxlens.config.yaml_file import read_yaml
from taxlens.core.artifacts import atomic_path
from taxlens.core.errors import UsageError, explain
from taxlens.stages import STAGES

_WIDTH = 40


def do_init(
    base: str, aligned: str, files: Sequence[str], *, benefits: Sequence[str], adapter: bool, out: Path
) -> None:
    """Write the config, check that it can be read, and say what to type next.

    Raises:
        UsageError: the file is there already.
    """
    if out.exists():
        raise UsageError(explain("a file is here already.", [("file", out)], "--out with another name."))
    text = commented_config(base, aligned, files, benefits=benefits, adapter=adapter, name=_plain(out.stem))
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    build_config(read_yaml(out), path=out)
    print(f"{out}\nnext: taxlens run {out} --dry-run")


def commented_config(
    base: str,
    aligned: str,
    files: Sequence[str],
    *,
    benefits: Sequence[str] = (),
    adapter: bool = False,
    name: str = "mine",
) -> str:
    """Return the text of a config: the pair and suites, then every key of every stage, commented out, with its default.

    Args:
        base: a directory, a hub id or demo:NAME.
        aligned: the same, or with `adapter` the directory of a PEFT adapter.
        files: item files of what should not be lost.
        benefits: item files of what alignment was for.
        adapter: whether `aligned` is an adapter on top of base.
        name: of the run.
    """
    suites, taken = [], set()
    for file, kind in [*((file, "capability") for file in files), *((file, "benefit") for file in benefits)]:
        stem = _plain(Path(file.removeprefix("demo:")).stem)
        named = next(n for n in (stem, *(f"{stem}_{k}" for k in range(2, 10_000))) if n not in taken)
        taken.add(named)
        suites.append({"name": named, "file": file} | ({"kind": kind} if kind == "benefit" else {}))
    pair = {"base": base, "adapter" if adapter else "aligned": aligned}
    lines = [
        "# Made by `taxlens init`. What differs from a default is set by removing the # before it.",
        f"name: {_flow(name)}",
        f"pair: {_flow(pair)}",
        "suites:",
        *(f"  - {_flow(suite)}" for suite in suites),
    ]
    if not benefits:
        lines.append(
            "#  - {name: harm, file: harm.jsonl, kind: benefit}   # what alignment was for, if you have items of it"
        )
    sections = {stage.key for stage in STAGES if stage.key}
    for key, field in Config.model_fields.items():
        if key not in ("name", "pair", "suites") and key not in sections:
            lines += _option(key, field, indent="")
    for stage in STAGES:
        if not stage.key:
            continue
        when = (
            "" if stage.always else f"; `taxlens run` does it only where this key is here, even as `{stage.key}: {{}}`"
        )
        lines += ["", f"# {stage.name}: {stage.help.rstrip('.')}{when}.", f"#{stage.key}:"]
        for key, field in stage.section.model_fields.items():
            lines += _option(key, field, indent="  ")
    return "\n".join(lines) + "\n"


def _option(key: str, field: FieldInfo, *, indent: str) -> list[str]:
    """A key as a comment: its default and what it means."""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if field.is_required():
        default = None
    said = f"#{indent}{key}: {_flow(default)}"
    meaning = " ".join((field.description or "").split())
    return [f"{said.ljust(_WIDTH)} # {meaning}" if meaning else said]


def _flow(value: Any) -> str:
    if isinstance(value, (tuple, list, set, frozenset)):
        value = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in value]
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("\n...\n").strip()
    )


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "suite"
