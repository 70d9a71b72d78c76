"""What each command does, once its options are known: run it, then say what came out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.cli.progress import terminal_progress
from taxlens.cli.show import show_ledger, show_run
from taxlens.core.errors import plain
from taxlens.core.progress import SILENT, Progress
from taxlens.runs.folder import Run
from taxlens.runs.running import redo_view, run, summary


def tell(done: Run, *, as_json: bool, verbose: bool = True, quiet: bool = False, stage: str = "") -> None:
    """Print what a run found, and on standard error what it said of changes."""
    for sentence in done.told:
        print(plain(sentence), file=sys.stderr)
    if as_json:
        print(json.dumps(summary(done), ensure_ascii=False))
    elif not quiet:
        show_run(done, verbose=verbose, stage=stage)


def progress_for(quiet: bool) -> Progress:
    """Return the terminal's progress, or none."""
    return SILENT if quiet else terminal_progress()


def do_demo(
    pair: str,
    *,
    out: Path | None,
    resume: bool,
    settings: Sequence[str],
    as_json: bool,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Run the whole job on an embedded pair."""
    from taxlens.demo import demo_config

    folder = out or Path("runs") / f"demo-{pair}"
    config, chosen = demo_config(pair)
    overrides = [*chosen, *settings]
    done = run(config, out=folder, overrides=overrides, resume=resume, progress=progress_for(quiet))
    tell(done, as_json=as_json, verbose=verbose, quiet=quiet)


def do_run(
    config: Path,
    *,
    out: Path | None,
    settings: Sequence[str],
    resume: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Run the whole job on any pair."""
    if dry_run:
        tell_plan(config, settings, stages=None, as_json=as_json)
        return
    done = run(config, out=out, overrides=settings, resume=resume, progress=progress_for(quiet))
    tell(done, as_json=as_json, verbose=verbose, quiet=quiet)


def do_stage(
    name: str,
    source: Path,
    *,
    out: Path | None,
    resume: bool,
    settings: Sequence[str],
    dry_run: bool,
    as_json: bool,
    shard: str | None = None,
    quiet: bool = False,
) -> None:
    """Run one stage, or one part of it."""
    from taxlens.cli.stores import part_of

    part = None if shard is None else part_of(shard)
    if dry_run:
        tell_plan(source, settings, stages=[name], as_json=as_json)
        return
    progress = progress_for(quiet)
    done = run(source, out=out, overrides=settings, resume=resume, stages=[name], part=part, progress=progress)
    tell(done, as_json=as_json, quiet=quiet, stage=name)


def do_figures(source: Path, *, only: str | None, venue: str | None, width: str | None, as_json: bool) -> None:
    """Draw a run's figures from its tables."""
    from taxlens.stages.figures.drawing import draw_run

    opened = Run.open(source)
    section = opened.config.figures
    options = {
        "venue": venue or section.venue,
        "width": width or section.width,
        "only": only,
        "progress": terminal_progress(),
    }
    paths = redo_view(opened, "figures", lambda: draw_run(opened, **options), keep=only is not None)
    names = [str(path) for path in paths]
    if as_json:
        print(json.dumps({"figures": names}))
        return
    print(*dict.fromkeys(str(path.with_suffix("")) for path in paths), sep="\n")
    print("each as .pdf, .png, .svg, .csv (the plotted numbers) and .txt (the caption)")


def do_report(source: Path, *, latex: bool, as_json: bool) -> None:
    """Write a run's report, and its paper kit if asked."""
    from taxlens.report.latex import write_latex
    from taxlens.report.page import write_report

    opened = Run.open(source)

    def write() -> list[Path]:
        opened.checked("figures")
        return [write_report(opened), *(write_latex(opened) if latex else [])]

    paths = redo_view(opened, "report", write)
    names = [str(path) for path in paths]
    print(json.dumps({"report": names}) if as_json else "\n".join(names))


def do_restore(source: Path, *, plan: str, out: Path, accept: bool, as_adapter: bool, as_json: bool) -> None:
    """Write the checkpoint of a plan, or its adapter."""
    from taxlens.runs.restoring import restore_run

    written = restore_run(
        Run.open(source), plan=plan, out=out, accept_benefit_loss=accept, as_adapter=as_adapter,
        progress=terminal_progress(),
    )  # fmt: skip
    print(json.dumps({"checkpoint": str(written)}) if as_json else str(written))


def do_import_eval(base: Path, aligned: Path, *, out: Path, check: str | None, as_json: bool, **choices: Any) -> None:
    """Read two evaluation logs to a suite and its logged tax; `choices` are those of `import_eval`."""
    from taxlens.analysis.logs.import_eval import import_eval
    from taxlens.inputs.resolve import resolve_model

    model = resolve_model(check, Path.cwd()) if check else None
    found = import_eval(base, aligned, check=model, out=out, **choices)
    for note in found.notes:
        print(note, file=sys.stderr)
    if as_json:
        print(found.to_frame().to_json(orient="records"))
        return
    print(repr(found))
    show_ledger(found.to_frame())
    for label, path in (
        ("suite", out),
        ("ledger", out.with_suffix(".tax.csv")),
        ("items", out.with_suffix(".items.csv")),
        ("notes", out.with_suffix(".notes.txt")),
    ):
        print(f"{label:<7} {path}")


def tell_plan(
    source: Path,
    settings: Sequence[str],
    *,
    stages: Sequence[str] | None,
    as_json: bool,
    part: tuple[int, int] | None = None,
) -> None:
    """Say what would be done and what it would cost."""
    from taxlens.runs.planning import plan

    planned = plan(source, overrides=settings, stages=stages, part=part, progress=terminal_progress())
    print(json.dumps(planned) if as_json else "\n".join(f"{name:<12} {value}" for name, value in planned.items()))
