"""Every command, its options and its exit code. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from taxlens.cli.features import features_app
from taxlens.core.errors import TaxlensError, explain, plain
from taxlens.core.interrupts import interrupted, interruptible, resume_command
from taxlens.demo import model_names
from taxlens.stages import FIGURES, STAGES
from taxlens.stages.capture import CAPTURE_STAGE
from taxlens.stages.features import FEATURES_STAGE
from taxlens.stages.figures.figures_section import FigureSection

# Typer carries click under another name in some versions: take the base of its own usage errors.
_ClickError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

PAIRS = [name.removeprefix("demo:") for name in model_names() if name != "demo:base"]
VENUES = get_args(FigureSection.model_fields["venue"].annotation)

app = typer.Typer(
    name="taxlens",
    help="Where an aligned model lost capability, in which state it is, and what it costs to get it back.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="A config file, or a run folder to go on with.")]
ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG|RUN", help="A config file (YAML), or with --resume a run folder.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Out = Annotated[Path | None, typer.Option("--out", envvar="TAXLENS_OUT", help="Run folder (default runs/NAME).")]
Resume = Annotated[bool, typer.Option("--resume", envvar="TAXLENS_RESUME", help="Go on with an existing run folder.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. tax.bootstrap=500."),
]
Json = Annotated[bool, typer.Option("--json", envvar="TAXLENS_JSON", help="Print the result as JSON.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", envvar="TAXLENS_VERBOSE", help="Print every table, not only the answer.")
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", envvar="TAXLENS_QUIET", help="Print neither progress nor tables.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it would cost; write nothing.")
]


_INTERRUPTED = 130


def run_app(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every failure is told in one screen on standard error."""
    with interruptible():
        try:
            done = app(arguments, standalone_mode=False)
            if done == _INTERRUPTED:  # typer met the interrupt first
                _tell_interrupt()
            return done if isinstance(done, int) else 0
        except (Exception, KeyboardInterrupt) as error:
            if interrupted(error) or isinstance(error, typer.Abort):
                _tell_interrupt()
                return _INTERRUPTED
            if isinstance(error, _ClickError):
                error.show(file=sys.stderr)  # type: ignore[attr-defined]
                return 2
            return _told(error)


def _tell_interrupt() -> None:
    """Say that the work stopped, and how to go on with it where a run was under way."""
    command = resume_command()
    said = f" What is finished is kept. Go on with: {command}" if command else ""
    print(f"interrupted.{said}", file=sys.stderr)


def _told(error: BaseException) -> int:
    """Tell an error in one screen, and return its exit code; the traceback of an unforeseen one goes to a file."""
    if isinstance(error, TaxlensError):
        print(f"{type(error).__name__}: {plain(str(error))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - whoever read the output has left
        return 1
    if isinstance(error, OSError) and error.errno is not None:
        rows = [("file", error.filename or "-"), ("system", error.strerror or error)]
        fix = "check that the path is there, that it may be written, and that the disk has room."
        print(f"TaxlensError: {explain('a file could not be read or written.', rows, fix)}", file=sys.stderr)
        return 1
    name, _, said = traceback.format_exception_only(error)[-1].strip().partition(": ")
    rows = [("error", name), ("says", " ".join(said.split())[:300] or "-"), ("traceback", _kept_traceback(error))]
    fix = "report it with that file; if a run was under way, its log.jsonl holds the same."
    print(f"TaxlensError: {explain('something failed that taxlens did not foresee.', rows, fix)}", file=sys.stderr)
    return 1


def _kept_traceback(error: BaseException) -> str:
    """Write an error's traceback to a file of its own, and return its path."""
    try:
        handle, path = tempfile.mkstemp(prefix="taxlens-error-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(traceback.format_exception(error))
    except OSError as refused:
        return f"not written: {refused.strerror}"
    return path


def _version(value: bool) -> None:
    if value:
        print(f"taxlens {importlib.metadata.version('taxlens')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    pair: Annotated[
        str, typer.Option("--pair", envvar="TAXLENS_PAIR", help=f"Embedded pair: {', '.join(PAIRS)}.")
    ] = "planted",
    out: Out = None,
    resume: Resume = False,
    settings: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run every stage on an embedded pair, offline."""
    from taxlens.cli.work import do_demo

    do_demo(pair, out=out, resume=resume, settings=settings or [], as_json=as_json, verbose=verbose, quiet=quiet)


@app.command()
def run(
    config: ConfigFile,
    out: Out = None,
    settings: Set = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run every stage on a pair of checkpoints."""
    from taxlens.cli.work import do_run

    do_run(
        config,
        out=out,
        settings=settings or [],
        resume=resume,
        dry_run=dry_run,
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
    )


Shard = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Do one of N parts; `taxlens merge` puts them together.")
]


@app.command()
def init(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A folder, a hub id or demo:NAME.")],
    aligned: Annotated[str, typer.Argument(metavar="ALIGNED", help="The same; with --adapter a PEFT adapter of base.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Item files, or demo:NAME: a suite each.")],
    benefit: Annotated[
        list[str] | None,
        typer.Option("--benefit", metavar="FILE", help="Item file of what alignment was for; may be repeated."),
    ] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="ALIGNED is a PEFT adapter on top of base.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Config to write.")] = Path("mine.yaml"),
) -> None:
    """Write a commented config for a pair and item files."""
    from taxlens.cli.init_config import do_init

    do_init(base, aligned, files, benefits=benefit or [], adapter=adapter, out=out)


def _stage(name: str, text: str, *, shared: bool = False) -> Callable[..., None]:
    def command(
        source: Source,
        out: Out = None,
        shard: Shard = None,
        resume: Resume = False,
        settings: Set = None,
        dry_run: DryRun = False,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from taxlens.cli.work import do_stage

        do_stage(
            name, source, out=out, shard=shard, resume=resume, settings=settings or [], dry_run=dry_run,
            as_json=as_json, quiet=quiet,
        )  # fmt: skip

    def alone(
        source: Source,
        out: Out = None,
        resume: Resume = False,
        settings: Set = None,
        dry_run: DryRun = False,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from taxlens.cli.work import do_stage

        do_stage(
            name, source, out=out, resume=resume, settings=settings or [], dry_run=dry_run, as_json=as_json, quiet=quiet
        )

    return command if shared else alone


def capture(
    source: Source,
    out: Out = None,
    shard: Shard = None,
    resume: Resume = False,
    settings: Set = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Capture both models' activations."""
    from taxlens.cli.stores import do_capture

    do_capture(source, out=out, shard=shard, resume=resume, settings=settings or [], dry_run=dry_run, as_json=as_json)


for stage in STAGES:
    if stage is FEATURES_STAGE:
        app.add_typer(features_app(_stage(stage.name, stage.help), stage.help), name=stage.name)
    elif stage.command:
        app.command(stage.name, help=stage.help)(_stage(stage.name, stage.help, shared=stage.shared))
    elif stage is CAPTURE_STAGE:
        app.command(stage.name, help=stage.help)(capture)


@app.command()
def figures(
    source: RunFolder,
    only: Annotated[str | None, typer.Option("--only", help=f"Draw this kind alone: {', '.join(FIGURES)}.")] = None,
    venue: Annotated[
        str | None, typer.Option("--venue", help=f"Page widths of this venue: {', '.join(VENUES)}.")
    ] = None,
    width: Annotated[str | None, typer.Option("--width", help="column or page.")] = None,
    as_json: Json = False,
) -> None:
    """Draw a run's figures from its tables."""
    from taxlens.cli.work import do_figures

    do_figures(source, only=only, venue=venue, width=width, as_json=as_json)


@app.command()
def report(
    source: RunFolder,
    latex: Annotated[bool, typer.Option("--latex", help="Also write the paper kit into the folder latex.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report, and its paper kit."""
    from taxlens.cli.work import do_report

    do_report(source, latex=latex, as_json=as_json)


@app.command()
def restore(
    source: RunFolder,
    plan: Annotated[str, typer.Option("--plan", help="Name of a plan in the run's frontier table.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the checkpoint to write.")],
    accept: Annotated[bool, typer.Option("--accept-benefit-loss", help="Write it although benefit is lost.")] = False,
    as_adapter: Annotated[bool, typer.Option("--as-adapter", help="Write a LoRA adapter (LoRA pairs).")] = False,
    as_json: Json = False,
) -> None:
    """Write the checkpoint that a plan describes."""
    from taxlens.cli.work import do_restore

    do_restore(source, plan=plan, out=out, accept=accept, as_adapter=as_adapter, as_json=as_json)


@app.command("import-eval")
def import_eval(
    base: Annotated[
        Path, typer.Argument(help="Per-item log of the base model (lm-eval, Inspect, lighteval or OLMES).")
    ],
    aligned: Annotated[Path, typer.Argument(help="Per-item log of the aligned model.")],
    out: Annotated[Path, typer.Option("--out", help="Suite to write (JSON lines).")],
    task: Annotated[str | None, typer.Option("--task", help="Only this task, or group of tasks, of the logs.")] = None,
    group_by: Annotated[str | None, typer.Option("--group-by", help="Field of the documents that groups.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Filter or scorer, if several.")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="Keep this metric; may be repeated.")] = None,
    check: Annotated[str | None, typer.Option("--check", help="A model to ask again: rescored against logged.")] = None,
    as_json: Json = False,
) -> None:
    """Make a suite from two evaluation logs."""
    from taxlens.cli.work import do_import_eval

    choices = {"task": task, "group_by": group_by, "variant": variant, "metrics": metric or None}
    do_import_eval(base, aligned, out=out, check=check, as_json=as_json, **choices)


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="What `--shard` left.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder (or store) to write.")],
    as_json: Json = False,
) -> None:
    """Put the parts of one stage together."""
    from taxlens.cli.stores import do_merge

    do_merge(parts, out=out, as_json=as_json)


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(metavar="RUN|STORE", help="A run folder or a store.")],
    as_json: Json = False,
) -> None:
    """Recompute checksums; say what differs."""
    from taxlens.cli.stores import do_verify

    do_verify(source, as_json=as_json)


@app.command()
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id or demo:NAME.")],
    adapter: Annotated[str | None, typer.Option("--adapter", help="A PEFT adapter to put on it.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Try a model: self-check and stages on 8 items."""
    from taxlens.cli.stores import do_check

    return do_check(model, adapter=adapter, dtype=dtype, device=device, as_json=as_json, quiet=quiet)


@app.command()
def inspect(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store (*.h5 or a folder of shards).")],
    as_json: Json = False,
) -> None:
    """Show what a store holds."""
    from taxlens.cli.stores import do_inspect

    do_inspect(store, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of the config."""
    import json

    from taxlens.config.schema import config_schema

    print(json.dumps(config_schema(), indent=2))
