"""Commands about stores: capture (whole or one part), merge, verify, inspect."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taxlens.cli.progress import terminal_progress
from taxlens.cli.work import tell, tell_plan
from taxlens.core.errors import UsageError, explain, plain
from taxlens.runs.folder import Run
from taxlens.runs.running import run


def do_capture(
    source: Path,
    *,
    out: Path | None,
    shard: str | None,
    resume: bool,
    settings: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Capture a config's activations, or one part of them."""
    part = None if shard is None else part_of(shard)
    stages = ["capture"]
    if dry_run:
        tell_plan(source, settings, stages=stages, part=part, as_json=as_json)
        return
    progress = terminal_progress()
    done = run(source, out=out, overrides=settings, resume=resume, stages=stages, part=part, progress=progress)
    if not as_json:
        from taxlens.activations.store.store import inspect

        print(inspect(done.folder / "activations.h5"))
    tell(done, as_json=as_json)


def part_of(text: str) -> tuple[int, int]:
    """Return (number, of how many) from "K/N".

    Raises:
        UsageError: if it is not two whole numbers with 1 <= K <= N.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        rows = [("got", repr(text)), ("must be", "K/N, with K from 1 to N")]
        raise UsageError(explain("--shard names no part.", rows, "--shard 1/8, the first of eight"))
    return number, count


def do_merge(parts: Sequence[Path], *, out: Path, as_json: bool) -> None:
    """Put parts of one stage, or of one capture, together."""
    from taxlens.runs.merging import merge_parts, merge_stage

    if (made := merge_stage(parts, out=out, progress=terminal_progress())) is not None:
        tell(made, as_json=as_json)
        return
    store = merge_parts(parts, out=out)
    said = {"merged": str(out), "parts": len(parts), "rows": store.n_rows}
    print(json.dumps(said) if as_json else f"{out}: {store.n_rows} rows from {len(parts)} parts, as one capture.")
    store.close()


def do_verify(source: Path, *, as_json: bool) -> None:
    """Recompute every checksum of a run folder or a store."""
    if (source / "run.json").is_file():
        opened = Run.open(source)
        opened.check()
        said: dict[str, Any] = {"verified": str(source), "files": len(opened.outputs)}
        text = f"{source}: {said['files']} files are as written."
    elif (source / "taxlens_restoration.json").is_file():
        from taxlens.analysis.frontier.restore import verify_restored

        said = {"verified": str(source), "files": verify_restored(source)}
        text = f"{source}: {said['files']} files of the restored checkpoint are as written."
    else:
        from taxlens.activations.store.store import verify

        verify(source)
        said, text = {"verified": str(source)}, f"{source}: the store is as written."
    print(json.dumps(said) if as_json else text)


def do_inspect(store: Path, *, as_json: bool) -> None:
    """Show what a store holds."""
    from taxlens.activations.store.store import inspect

    found = inspect(store)
    print(json.dumps(found.to_dict()) if as_json else str(found))


def do_check(model: str, *, adapter: str | None, dtype: str, device: str, as_json: bool, quiet: bool) -> int:
    """Try a model and say what works; 0 where everything does, else 1."""
    from taxlens.cli.work import progress_for
    from taxlens.face.check import check_model

    found = check_model(model, adapter=adapter, dtype=dtype, device=device, progress=progress_for(quiet))
    if as_json:
        print(json.dumps({"model": found.source, "works": found.works, "steps": found.to_frame().to_dict("records")}))
        return 0 if found.works else 1
    for step, works, what, seconds in found.rows:
        print(f"{'works' if works else 'FAILS'}  {step:<12} {seconds:6.1f} s  {plain(what)}")
    for note in found.notes:
        print(f"note: {plain(note)}")
    return 0 if found.works else 1
