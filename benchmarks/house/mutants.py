"""Mutation testing with a committed list: each mutation is put into a copy of the source, and the named tests must fail.

Run: python -m benchmarks.house.mutants [--only WORD] [--timeout 300]
A mutation is killed if its tests fail, survives if they pass, and is lost if its text is no longer in the file. A run that
takes longer than the time limit counts as killed by time, and is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutations.json")
_COPIED = ("core", "activations", "probes", "analysis", "taxlens", "tests", "benchmarks", "docs", "configs", "examples")


def copied(folder: Path) -> Path:
    """A copy of what the tests import, links as links."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def tried(mutation: dict[str, str], copy: Path, timeout: float) -> str:
    """Put one mutation into the copy, run its tests, put the file back; returns killed, SURVIVED, lost or time."""
    path = copy / mutation["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutation["old"]) < 1:
        return "lost"
    path.write_text(text.replace(mutation["old"], mutation["new"], 1), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        *mutation["tests"].split(" ", 2),
    ]
    try:
        done = subprocess.run(
            command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=timeout,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "time"
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        return f"broken: {done.stdout.decode(errors='replace').splitlines()[-1:]}"
    return "killed" if done.returncode else "SURVIVED"


def main() -> None:
    """Try every mutation of the list, print the score, and exit with 1 below 90 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--timeout", type=float, default=300.0)
    chosen = parser.parse_args()
    wanted = [one for one in json.loads(LIST.read_text(encoding="utf-8")) if chosen.only in one["name"]]
    with tempfile.TemporaryDirectory() as name:
        copy = copied(Path(name))
        results = []
        for mutation in wanted:
            results.append(tried(mutation, copy, chosen.timeout))
            print(f"{results[-1]:<9} {mutation['name']}", flush=True)
    killed = sum(result in ("killed", "time") for result in results)
    print(f"{killed} of {len(results)} killed")
    sys.exit(killed < 0.9 * len(results))


if __name__ == "__main__":
    main()
