"""The command `features`: the stage itself, `features train` and `features convert`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from taxlens.cli.progress import terminal_progress
from taxlens.core.progress import SILENT, Progress

ACCOUNT = "account"


class WithDefault(TyperGroup):
    """A group whose first word may be left out: it then is the account of a config or run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the account's name before arguments that begin with no command of the group."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [ACCOUNT, *args]
        return super().parse_args(ctx, args)


def features_app(account: Callable[..., None], text: str) -> typer.Typer:
    """Return the group `features`, whose default command is the stage.

    Args:
        account: the stage's command.
        text: its help.
    """
    group = typer.Typer(cls=WithDefault, help=text, no_args_is_help=True, rich_markup_mode=None)
    group.command(ACCOUNT, help=text + " `features CONFIG` is the same.")(account)
    group.command("train")(train)
    group.command("convert")(convert)
    return group


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config with features.train.")],
    out: Annotated[Path, typer.Option("--out", envvar="TAXLENS_OUT", help="Folder of the dictionaries.")],
    resume: Annotated[bool, typer.Option("--resume", envvar="TAXLENS_RESUME", help="Go on where it stopped.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", envvar="TAXLENS_JSON", help="Print the result as JSON.")] = False,
) -> None:
    """Train the dictionaries of a config's features.train."""
    found = train_config(config, out, overrides=settings or [], resume=resume, progress=terminal_progress())
    if as_json:
        print(json.dumps(found))
        return
    for folder, facts in found.items():
        print(
            f"{folder}: explains {facts['explained']:.1%} of held-out variance, {facts['active']:.1f} latents a token"
        )


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A dictionary that torch.save wrote (.pt).")],
    out: Annotated[Path, typer.Option("--out", envvar="TAXLENS_OUT", help="Folder to write (safetensors).")],
    as_json: Annotated[bool, typer.Option("--json", envvar="TAXLENS_JSON", help="Print the result as JSON.")] = False,
) -> None:
    """Write a pickled dictionary as safetensors; no code of the file is run."""
    from taxlens.analysis.features.dictionaries.dictionary_files import convert as convert_file
    from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary

    folder = convert_file(file, out)
    found = read_dictionary(folder)
    facts = {"folder": str(folder), "kind": found.kind, "role": found.role, "width": found.width, "d_in": found.d_in}
    print(json.dumps(facts) if as_json else f"{folder}: {found.kind} {found.role} of {found.width} latents")


def train_config(
    config: Path, out: Path, *, overrides: Sequence[str] = (), resume: bool = False, progress: Progress = SILENT
) -> dict[str, dict[str, float]]:
    """Train the dictionaries of a config's features.train and return what each does on held-out text.

    Args:
        config: a config file.
        out: folder of the dictionaries.
        overrides: "key=value" pairs.
        resume: take up an interrupted training.
        progress: told of reading and steps.

    Raises:
        ConfigError: the config asks for no training.
    """
    from taxlens.analysis.features.dictionaries.dictionary_files import read_record
    from taxlens.config.schema import load_config
    from taxlens.core.errors import ConfigError, explain
    from taxlens.inputs.checkpoints import load_chain
    from taxlens.stages.features import FEATURES_STAGE
    from taxlens.stages.features.features_training import jobs_of, train_missing

    read = load_config(config, overrides=overrides)
    section = read.of(FEATURES_STAGE).train
    if section is None:
        fix = "features: {train: {corpus: [texts.jsonl], layers: [7]}}"
        raise ConfigError(explain("the config asks for no training.", [("config", config)], fix))
    root, asked = config.parent, read.pair
    pair, _ = load_chain(
        asked.base, asked.aligned, adapter=asked.adapter, root=root, gguf=asked.gguf, dtype=asked.dtype,
        device=asked.device, chat_template=read.chat_template, revision=asked.revision,
    )  # fmt: skip
    train_missing(pair, section, root=root, out=out, resume=resume, progress=progress)
    return {one.folder: read_record(out / one.folder).get("held_out", {}) for one in jobs_of(section)}
