"""What a dry run says against what then happens, stage by stage: processor time, bytes on disk, memory.

Stages are done one after the other in this process, each measured by its processor time, by the growth of the run's
folder, and by the most memory that the process held above what it held once the models were loaded (Linux only).

Run: python -m benchmarks.house.dry_run [CONFIG] [--pair NAME] [--set key=value] [--kept FILE] [--out FILE]

Without CONFIG: the demo. --kept writes the measurements, or compares with those that the file holds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.house.memory_peak import give_back, held_bytes, peak_bytes, reset_peak
from taxlens.config.schema import load_config
from taxlens.config.yaml_file import read_yaml
from taxlens.demo import demo_config
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.runs.planning import stage_costs
from taxlens.stages import STAGES


def run_stages(source: Path, overrides: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """Do a run's stages and return what each took: seconds of the processor, bytes on disk, bytes of memory."""
    config = load_config(source, overrides=overrides)
    run = Run.create(config, folder, given=read_yaml(source), root=source.parent)
    job, found = RunContext(run, stages=config.planned), {}
    with run.locked():
        _ = job.pair, job.suites
        loaded = held_bytes()
        for stage in (one for one in STAGES if one.name in config.planned):
            give_back()
            reset_peak()
            disk, started = _size(folder), time.process_time()
            with run.stage(stage.name, made_from=job.made_from(stage.name)):
                stage.compute(job, config.of(stage))
            found[stage.name] = {
                "seconds": time.process_time() - started,
                "disk": _size(folder) - disk,
                "memory": peak_bytes() - loaded,
            }
            print(stage.name, found[stage.name], flush=True)
    return found


def _size(folder: Path) -> int:
    return sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file())


def said(source: Path, overrides: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what a dry run says of each stage."""
    costs = stage_costs(source, overrides=overrides)
    return {
        name: {"seconds": 60 * cost.minutes, "disk": cost.disk, "memory": cost.memory} for name, cost in costs.items()
    }


def table(dry: dict[str, dict[str, float]], run: dict[str, dict[str, float]]) -> str:
    """Return the comparison as a table in markdown."""
    heads = [
        "stage",
        *(f"{what} {which}" for what in ("s", "MB on disk", "MB of memory") for which in ("said", "taken")),
        "s",
    ]
    rows = [heads, ["---"] * len(heads)]
    whole = {"in all": _sum(dry)}, {"in all": _sum(run)}
    for name, taken in (run | whole[1]).items():
        expected = (dry | whole[0])[name]
        row = [name, f"{expected['seconds']:.1f}", f"{taken['seconds']:.1f}"]
        row += [f"{one[key] / 1e6:.1f}" for key in ("disk", "memory") for one in (expected, taken)]
        rows.append([*row, f"x {expected['seconds'] / max(taken['seconds'], 1e-9):.2f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _sum(stages: dict[str, dict[str, float]]) -> dict[str, float]:
    seconds, disk, memory = ([one[key] for one in stages.values()] for key in ("seconds", "disk", "memory"))
    return {"seconds": sum(seconds), "disk": sum(disk), "memory": max(memory)}


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--pair", default="planted")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--kept", type=Path)
    given = parser.parse_args()
    source, chosen = (given.config, []) if given.config else demo_config(given.pair)
    overrides = [*chosen, *given.overrides]
    if given.kept and given.kept.is_file():
        taken = json.loads(given.kept.read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as folder:
            taken = run_stages(source, overrides, Path(folder) / "run")
        if given.kept:
            given.kept.write_text(json.dumps(taken), encoding="utf-8")
    print(table(said(source, overrides), taken))


if __name__ == "__main__":
    main()
