"""Kill a run at random moments, resume it, and compare every byte with a run that nobody killed.

Run: python -m benchmarks.house.kills --kills 100
Each round starts the command line on the embedded pair in a process of its own, sends SIGKILL, SIGTERM or SIGINT after a
random time, and goes on with `--resume` until the run ends by itself. The folder must then hold the bytes of the reference
(times and the report apart) and pass `taxlens verify`. After every kill, no file of the manifest may be half-written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from taxlens.demo import catalogue
from taxlens.runs.folder import Run
from taxlens.runs.verification import damaged

CONFIG = """name: kills
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: facts.jsonl}
  - {name: harm, file: harm.jsonl, kind: benefit, template: chat}
templates: [plain, chat]
tax: {bootstrap: 200}
capture: {layers: [1, 2], shard_bytes: 200000}
probes: {labels: [correct], permutations: 19}
similarity: {measures: [cka, drift], map: [], test_layers: 0}
attribution: {levels: [component, singular], tolerance: 0.05}
frontier: {shares: [0.05, 0.2], draws: 1, orders: [path, magnitude], leave_out: false}
diagnose: {layers: [2], relearn: false}
"""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NOT_COMPARED = {"report.html"}


def prepared(folder: Path) -> Path:
    """A config and small suites in a folder."""
    for name, count in (("facts", 16), ("harm", 16)):
        lines = catalogue.resolve_suite(f"demo:{name}").read_text(encoding="utf-8").splitlines()
        kept = lines[:: max(1, len(lines) // count)][:count]
        (folder / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    (folder / "c.yaml").write_text(CONFIG, encoding="utf-8")
    return folder / "c.yaml"


def started(config: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command line, in a process of its own."""
    resume = ["--resume"] if out.exists() else []
    command = [sys.executable, "-m", "benchmarks.house.kills", "--child", str(config), "--out", str(out), *resume]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def half_written(out: Path) -> list[str]:
    """Files that a finished stage wrote and that are not as it wrote them."""
    if not (out / "run.json").is_file():
        return []
    run = Run.open(out)
    return [name for stage in run.manifest["stages"] if run.done(stage) for name in damaged(run, stage)]


def round_of(config: Path, out: Path, longest: float, dice: random.Random) -> dict[str, int]:
    """Kill and resume one run until it ends by itself; returns counts."""
    found = {"kills": 0, "half": 0, "odd": 0}
    while True:
        process = started(config, out)
        try:
            code = process.wait(timeout=dice.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            chosen = dice.choice(SIGNALS)
            process.send_signal(chosen)
            try:
                code = process.wait(timeout=60)
            except subprocess.TimeoutExpired:  # the signal came before anybody listened for it
                process.kill()
                code, chosen = process.wait(), signal.SIGKILL
            found["kills"] += 1
            found["half"] += len(half_written(out))
            found["odd"] += chosen != signal.SIGKILL and code not in (130, 0, -chosen)
            if chosen != signal.SIGKILL and code == 130 and (out / "run.json").is_file():
                found["odd"] += Run.open(out).manifest["status"] not in ("cancelled", "started", "success")
            continue
        if code:
            sys.stderr.write(process.stderr.read().decode() if process.stderr else "")
            raise SystemExit(f"the resumed run failed with {code}: {out}")
        return found


def main() -> None:
    """Run the rounds, print what was met, and exit with 1 if any byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    if chosen.child is not None:
        from taxlens.cli.app import run_app

        sys.exit(
            run_app(["run", str(chosen.child), "--out", str(chosen.out), *(["--resume"] if chosen.resume else [])])
        )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its children to ignore it
    dice = random.Random(chosen.seed)
    total = {"kills": 0, "half": 0, "odd": 0, "runs": 0, "equal": 0}
    with tempfile.TemporaryDirectory() as name:
        config, begun = prepared(Path(name)), time.monotonic()
        process = started(config, Path(name) / "whole")
        if process.wait():
            raise SystemExit(process.stderr.read().decode() if process.stderr else "the reference failed")
        longest = (time.monotonic() - begun) * 0.8
        wanted = Run.open(Path(name) / "whole").hashes()
        while total["kills"] < chosen.kills:
            out = Path(name) / f"killed-{total['runs']}"
            met = round_of(config, out, longest, dice)
            run = Run.open(out)
            hashes = run.hashes()
            differ = {n for n in wanted.keys() | hashes.keys() if wanted.get(n) != hashes.get(n)} - NOT_COMPARED
            problems = run.verify()
            total = {k: total[k] + met.get(k, 0) for k in total} | {"runs": total["runs"] + 1}
            total["equal"] += not differ and not problems
            print(json.dumps(total), sorted(differ)[:5], problems[:5], flush=True)
            shutil.rmtree(out)
    sys.exit(total["equal"] < total["runs"] or total["half"] > 0 or total["odd"] > 0)


if __name__ == "__main__":
    main()
