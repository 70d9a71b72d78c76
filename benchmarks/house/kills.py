"""Kill a run at random moments, resume it, and compare every byte with a run that nobody killed.

Run: python -m benchmarks.house.kills --kills 85 --workers 15
Each round starts the command line on an embedded pair, sends SIGKILL, SIGTERM or SIGINT after a random time of the
processor, and goes on with `--resume`, to be killed again, until the run ends by itself. Two configs take turns: one of
every stage that computes, one that ends in figures and report, so that kills fall into every stage. A third has two workers:
one of these is killed, or the process that they work for. The folder
must then hold the bytes of the reference (the report and what says how long something took apart) and pass `taxlens verify`.
After every kill, no file of a finished stage may be half-written. A killed process is a fork of one that has imported
everything, so that kills fall into the work.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

from taxlens.core.artifacts import sha256_text
from taxlens.demo import catalogue
from taxlens.runs.folder import Run
from taxlens.runs.verification import damaged

PAIR = """name: kills
pair: {base: demo:base, aligned: demo:planted}
templates: [plain]
tax: {bootstrap: 100}
suites:
  - {name: facts, file: facts.jsonl}
"""
CONFIGS = {
    "computes": PAIR
    + """
  - {name: harmless, file: harmless.jsonl, attribute: false}
  - {name: harm, file: harm.jsonl, kind: benefit, attribute: false}
stages: [tax, capture, probe, similarity, lens, attribute, diagnose, features, frontier, edit]
capture: {layers: [1, 2], shard_bytes: 100000}
probes: {labels: [correct], permutations: 19}
similarity: {measures: [cka, drift], map: [], test_layers: 0}
attribution: {levels: [component, singular], tolerance: 0.05}
diagnose: {layers: [2]}
features:
  train: {corpus: [words.txt], layers: [1], width: 64, k: 4, tokens: 2000, passes: 2, batch: 128, context: 16}
  metrics: [probability]
  suites: [facts]
  items: 8
  draws: 1
  components: 0
  listed: 5
frontier: {shares: [0.05, 0.2], draws: 1, orders: [path, magnitude], leave_out: false}
edit: {harmless: harmless, suites: [facts], editors: [interpolation], tries: 1}
""",
    "shows": PAIR + "stages: [tax, figures, report]\n",
    "workers": PAIR
    + """
  - {name: harm, file: harm.jsonl, kind: benefit, attribute: false}
stages: [tax, capture, attribute, diagnose]
capture: {layers: [1, 2], shard_bytes: 100000}
attribution: {levels: [component], tolerance: 0.05}
diagnose: {layers: [2]}
executor: {kind: local, workers: 2}
""",
}
"""Configs by name; the one with workers is compared with a run of one process."""
LONGEST = {"computes": 0.4, "shows": 0.9, "workers": 1.2}
"""Share of a run after which it is killed at the latest: its longest stage must have an end."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED = {"cancelled", "started", "success"}
NOT_COMPARED = {"report.html"}
TIMES = re.compile(r"seconds|minutes|_s$|_ms$|^seal$")
"""Names of columns, keys and measures that say how long something took, or that are a hash of these."""


def prepared(folder: Path) -> dict[str, Path]:
    """The configs by name, with small suites and a small corpus in a folder."""
    for name in ("facts", "harmless", "harm"):
        lines = catalogue.resolve_suite(f"demo:{name}").read_text(encoding="utf-8").splitlines()
        kept = lines[:: max(1, len(lines) // 12)][:12]
        (folder / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    facts = catalogue.resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in facts]
    (folder / "words.txt").write_text("\n\n".join(prompts), encoding="utf-8")
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(text.replace("\n\n", "\n"), encoding="utf-8")
    return {name: folder / f"{name}.yaml" for name in CONFIGS}


def forked(work: Callable[[], int], errors: Path) -> int:
    """Do something in a process of its own group, and return the process' number."""
    if number := os.fork():
        return number
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(errors, "w", encoding="utf-8") as told, open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(told.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stderr.flush()
        os._exit(code)


def command(config: Path, out: Path) -> int:
    """What the command line does with `taxlens run`."""
    from taxlens.cli.app import run_app

    return run_app(["run", str(config), "--out", str(out), *(["--resume"] if out.exists() else [])])


def killed_after(process: int, seconds: float, chosen: signal.Signals, dice: random.Random) -> tuple[int, int]:
    """Send a signal after some seconds of the processor, to the process or one of its workers.

    Returns:
        Who was sent it (0: nobody, it ended before), and the exit code of the process (-n: signal n).
    """
    sent, victim, workers = 0.0, 0, set[int]()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return victim, os.waitstatus_to_exitcode(status)
        alive = children(process)
        workers |= set(alive)
        if not victim and spent(process) + sum(map(spent, workers)) > seconds:
            victim = dice.choice([process, *alive])
            os.kill(victim, chosen if victim == process else signal.SIGKILL)
            sent = time.monotonic()
        elif victim == process and time.monotonic() - sent > 120:  # the signal came before anybody listened for it
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def spent(process: int) -> float:
    """Seconds of the processor that a process has used."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def half_written(out: Path) -> list[str]:
    """Files that a finished stage wrote and that are not as it wrote them."""
    if not (out / "run.json").is_file():
        return []
    run = Run.open(out)
    return [name for stage in run.manifest["stages"] if run.done(stage) for name in damaged(run, stage)]


def under_way(out: Path) -> str:
    """The stage in which a killed run was."""
    if not (out / "run.json").is_file() or not (out / "run.json").stat().st_size:
        return "begin"
    stages = Run.open(out).manifest["stages"]
    return next((name for name, entry in stages.items() if entry["status"] != "success"), "between")


def round_of(config: Path, out: Path, longest: float, dice: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Kill and resume one run until it ends by itself; returns counts, and the stages in which it was killed."""
    found, where = Counter[str](), Counter[str]()
    errors = out.with_suffix(".err")
    while True:
        chosen = dice.choice(SIGNALS)
        process = forked(lambda: command(config, out), errors)
        victim, code = killed_after(process, dice.uniform(0, longest), chosen, dice)
        if victim != process and code:
            raise SystemExit(f"the resumed run failed with {code}: {errors.read_text(encoding='utf-8')}")
        found["kills"] += victim > 0
        found["of a worker"] += victim not in (0, process)
        if victim != process:
            where["worker"] += victim > 0
            return found, where
        found["half"] += len(half_written(out))
        where[under_way(out)] += 1
        tidy = code == -signal.SIGKILL if chosen == signal.SIGKILL else code in (0, 130, -chosen, -signal.SIGKILL)
        if code == 130 and (out / "run.json").is_file() and Run.open(out).manifest["status"] not in ENDED:
            tidy = False
        if not tidy:
            found["odd"] += 1
            print(chosen.name, code, errors.read_text(encoding="utf-8")[-2000:], flush=True)


def told(folder: Path) -> dict[str, str]:
    """Hashes of a run's files by name, without what says how long something took."""
    found = {}
    for name, digest in Run.open(folder).hashes().items():
        path = folder / name
        if path.suffix == ".json":
            digest = sha256_text(json.dumps(_timeless(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True))
        elif path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
            kept = [n for n, column in enumerate(rows[0]) if not TIMES.search(column)] if rows else []
            rows = [row for row in rows if not any("seconds" in cell for cell in row)]
            digest = sha256_text(json.dumps([[row[n] for n in kept] for row in rows]))
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            digest = sha256_text(json.dumps([_timeless(json.loads(line)) for line in lines], sort_keys=True))
        found[name] = digest
    return {name: digest for name, digest in found.items() if name not in NOT_COMPARED}


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(inside) for key, inside in value.items() if not TIMES.search(key)}
    return [_timeless(inside) for inside in value] if isinstance(value, list) else value


def children(process: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if int(words[1]) == process and b"worker_call" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def imported() -> None:
    """Import what a run imports, so that forks need not."""
    import pkgutil

    import taxlens

    for module in pkgutil.walk_packages(taxlens.__path__, "taxlens."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def finished(process: int, errors: Path) -> float:
    """Wait for a process that nobody kills, and return the seconds of the processor it used."""
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"the reference failed: {errors.read_text(encoding='utf-8')}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the rounds, print what was met, and exit with 1 if any byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=85, help="of runs of one process")
    parser.add_argument("--workers", type=int, default=15, help="kills of runs of two workers")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    imported()
    dice, total, where = random.Random(chosen.seed), Counter[str](), Counter[str]()
    seconds, wanted = {}, {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        configs, errors = prepared(folder), folder / "whole.err"
        parts = [(("computes", "computes", "shows"), chosen.kills), (("workers",), chosen.kills + chosen.workers)]
        for names, most in parts:
            for name in cycle(names):
                if total["kills"] >= most:
                    break
                if name not in wanted:
                    out = folder / f"whole-{name}"
                    seconds[name] = finished(forked(partial(command, _alone(configs[name]), out), errors), errors)
                    wanted[name] = told(out)
                    print(f"{name}: the reference took {seconds[name]:.1f} s of the processor", flush=True)
                out = folder / f"killed-{total['runs']}"
                met, places = round_of(configs[name], out, LONGEST[name] * seconds[name], dice)
                hashes, problems = told(out), Run.open(out).verify()
                differ = {n for n in wanted[name].keys() | hashes.keys() if wanted[name].get(n) != hashes.get(n)}
                where += places
                total += met + Counter(runs=1, equal=not differ and not problems)
                print(json.dumps(total), json.dumps(where), sorted(differ)[:8], problems[:5], flush=True)
                if differ or problems:
                    shutil.copytree(out, Path(f"{tempfile.gettempdir()}/differs-{os.getpid()}-{total['runs']}"))
                shutil.rmtree(out)
    sys.exit(total["runs"] > total["equal"] or total["half"] + total["odd"] > 0)


def _alone(config: Path) -> Path:
    """The config without workers."""
    lines = config.read_text(encoding="utf-8").splitlines()
    alone = config.with_name(f"alone-{config.name}")
    alone.write_text("\n".join(line for line in lines if not line.startswith("executor:")) + "\n", encoding="utf-8")
    return alone


if __name__ == "__main__":
    main()
