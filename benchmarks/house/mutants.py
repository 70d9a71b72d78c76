"""Mutation testing with a committed list: each mutation is put into a copy of the source, and the named tests must fail.

Run: python -m benchmarks.house.mutants [--only WORD ...] [--timeout 300]
A mutation is killed if its tests fail, survives if they pass, and is lost if its text is no longer in the file. A run that
takes longer than the limit (seconds of the processor) counts as killed by time, and is told apart. Each runs in a fork of one
process that has imported what is not ours, so that a mutation costs little more than its tests.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
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
    """Put one mutation into the copy, run its tests, put the file back; returns killed, SURVIVED, lost, time or broken."""
    path = copy / mutation["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutation["old"]) != 1:
        return "lost"
    path.write_text(text.replace(mutation["old"], mutation["new"]), encoding="utf-8")
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    told = copy / "told.txt"
    try:
        process = os.fork()
        if not process:
            _tests(copy, mutation["tests"].split(" "), told, timeout)
        _, status = os.waitpid(process, 0)
    finally:
        path.write_text(text, encoding="utf-8")
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return "time"
    if code not in (0, 1):
        return f"broken ({code}): {(told.read_text(errors='replace').strip().splitlines() or ['-'])[-1]}"
    return "killed" if code else "SURVIVED"


def _tests(copy: Path, arguments: list[str], told: Path, timeout: float) -> None:
    """Run tests in this process, which ends with pytest's exit code."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + timeout), resource.RLIM_INFINITY))
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "taxlens", "tests")]:
        del sys.modules[name]
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(ROOT)))]
    os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    with open(told, "w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        code = 4
        try:
            import pytest

            places = [one for one in arguments if "/" in one]
            words = [one for one in arguments if "/" not in one]
            words = [words[0], " ".join(words[1:])] if words else []
            code = int(pytest.main(["-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", *places, *words]))
        finally:
            os._exit(code)


def main() -> None:
    """Try every mutation of the list, print the score, and exit with 1 below 90 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of names")
    parser.add_argument("--timeout", type=float, default=300.0)
    chosen = parser.parse_args()
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    wanted = json.loads(LIST.read_text(encoding="utf-8"))
    wanted = [one for one in wanted if any(word in one["name"] for word in chosen.only)]
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
