"""Kill a run at random moments, resume it, and compare every byte with a run that nobody killed.

Run: python -m benchmarks.house.kills --kills 85 --workers 15
Each round starts the command line on an embedded pair, sends SIGKILL, SIGTERM or SIGINT after a random time of the
processor, and goes on with `--resume`, to be killed again, until the run ends by itself. Two configs take turns: one of
every stage that computes, one that ends in figures and report, so that kills fall into every stage. The folder
must then hold the bytes of the reference (the report and what says how long something took apart) and pass `taxlens verify`.
After every kill, no file of a finished stage may be half-written. A killed process is a fork of one that has imported
everything, so that kills fall into the work. `--workers` kills attributions in pieces that two processes do: one of the
workers, or the process that they work for.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
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

import numpy as np

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
attribution: {levels: [component, singular], tolerance: 0.05, neurons: 4}
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
}
"""Configs by name."""
LONGEST = {"computes": 0.4, "shows": 0.9}
"""Share of a run after which it is killed at the latest: its longest stage must have an end."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED = {"cancelled", "started", "success"}
NOT_COMPARED = {"report.html"}
TIMES = re.compile(r"seconds|minutes|_s$|_ms$|^seal$")
"""Names of columns and keys that say how long something took, or that are a hash of these."""


def prepared(folder: Path) -> dict[str, Path]:
    """The configs by name, with small suites and a small corpus in a folder."""
    for name in ("facts", "harmless", "harm"):
        lines = catalogue.resolve_suite(f"demo:{name}").read_text(encoding="utf-8").splitlines()
        kept = lines[:: max(1, len(lines) // 16)][:16]
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


def killed_after(process: int, seconds: float, chosen: signal.Signals) -> tuple[bool, int]:
    """Send a signal after some seconds of the processor; returns whether it was sent, and the exit code (-n: signal n)."""
    sent: float | None = None
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return sent is not None, os.waitstatus_to_exitcode(status)
        if sent is None and spent(process) > seconds:
            os.kill(process, chosen)
            sent = time.monotonic()
        elif sent is not None and time.monotonic() - sent > 120:  # the signal came before anybody listened for it
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
        sent, code = killed_after(forked(lambda: command(config, out), errors), dice.uniform(0, longest), chosen)
        if not sent and code:
            raise SystemExit(f"the resumed run failed with {code}: {errors.read_text(encoding='utf-8')}")
        if not sent:
            return found, where
        found["kills"] += 1
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
            digest = sha256_text(json.dumps([[row[n] for n in kept] for row in rows]))
        found[name] = digest
    return {name: digest for name, digest in found.items() if name not in NOT_COMPARED}


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(inside) for key, inside in value.items() if not TIMES.search(key)}
    return [_timeless(inside) for inside in value] if isinstance(value, list) else value


def pieces(folder: Path, out: Path, scratch: Path) -> int:
    """Attribute a suite in pieces that two processes do, and write a hash of what was found."""
    import taxlens
    from taxlens.analysis.pieces.pair_pieces import effects_in_pieces
    from taxlens.core.executor import executor_of

    load = {"base": str(catalogue.resolve("demo:base")), "aligned": str(catalogue.resolve("demo:planted"))}
    pair = taxlens.load_pair(load["base"], load["aligned"])
    suite = taxlens.suite(str(folder / "facts.jsonl"))
    executor = executor_of(workers=2, scratch=scratch)
    found = effects_in_pieces(pair.models, [suite], load, executor, tolerance=0.05, batch_tokens=128, memory=1)
    digest = hashlib.sha256()
    _digest(found, digest)
    out.write_text(digest.hexdigest(), encoding="ascii")
    return 0


def _digest(value: object, digest: hashlib._Hash) -> None:
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        for key, inside in value.items():
            digest.update(str(key).encode())
            if key != "seconds":
                _digest(inside, digest)
    elif isinstance(value, np.ndarray):
        digest.update(str(value.dtype).encode() + str(value.shape).encode() + value.tobytes())
    else:
        digest.update(repr(value).encode())


def pieces_round(folder: Path, number: int, wanted: str, longest: float, dice: random.Random) -> Counter[str]:
    """Kill one of the workers or their process, and begin again with what was kept, until it ends; returns counts."""
    found, scratch = Counter[str](runs=1), folder / f"scratch-{number}"
    out, errors = folder / f"pieces-{number}", folder / f"pieces-{number}.err"
    while not out.exists():
        process = forked(lambda: pieces(folder, out, scratch), errors)
        workers: list[int] = []
        after, one, sent = dice.uniform(0, longest), dice.random() < 0.5, False
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            workers = sorted({*workers, *children(process)})
            if not sent and spent(process) + sum(map(spent, workers)) > after:
                alive = children(process)
                victim = dice.choice(alive) if alive and one else process
                os.kill(victim, signal.SIGKILL)
                found["workers" if victim != process else "owners"] += 1
                found["kills"] += 1
                sent = True
            time.sleep(0.05)
        code = os.waitstatus_to_exitcode(ended[1])
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"pieces failed with {code}: {errors.read_text(encoding='utf-8')}")
        time.sleep(2.0)
        found["orphans"] += sum(running(worker) for worker in workers)
    found["equal"] += out.read_text(encoding="ascii") == wanted
    return found


def children(process: int) -> list[int]:
    """The processes that a process started and that run (its workers, not what watches over shared memory)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if int(words[1]) == process and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def running(process: int) -> bool:
    """Whether a process is there and works."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2][1] != "Z"
    except OSError:
        return False


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
    parser.add_argument("--kills", type=int, default=85, help="of a run of every stage")
    parser.add_argument("--workers", type=int, default=15, help="kills of attributions in pieces")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    imported()
    dice, wrong = random.Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        configs, errors = prepared(folder), folder / "whole.err"
        total, where, seconds, wanted = Counter[str](), Counter[str](), {}, {}
        for name in configs if chosen.kills else ():
            out = folder / f"whole-{name}"
            seconds[name] = finished(forked(partial(command, configs[name], out), errors), errors)
            wanted[name] = told(out)
            print(f"{name}: the reference took {seconds[name]:.1f} s of the processor", flush=True)
        for name in cycle(("computes", "computes", "shows")):
            if total["kills"] >= chosen.kills:
                break
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
        wrong += total["runs"] - total["equal"] + total["half"] + total["odd"]
        if chosen.workers:
            whole = finished(forked(lambda: pieces(folder, folder / "pieces", folder / "scratch"), errors), errors)
            print(f"the pieces took {whole:.1f} s of the processor", flush=True)
            wanted_pieces, total = (folder / "pieces").read_text(encoding="ascii"), Counter[str]()
            while total["kills"] < chosen.workers:
                total += pieces_round(folder, total["runs"], wanted_pieces, 1.2 * whole, dice)
                print(json.dumps(total), flush=True)
            wrong += total["runs"] - total["equal"] + total["orphans"]
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
