"""Peak memory of reading and pairing two logs, by the number of samples: each size in a process of its own.

``python -m benchmarks.speed.log_memory [--sizes 10000 100000]`` writes the logs (lm-eval's layout, prompts of 600
characters, four choices) to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "A line of a prompt with examples in it, as few-shot evaluations have them. " * 8
DATE = "2026-01-02T03-04-05.678901"


def write_log(folder: Path, count: int, *, wrong: int) -> int:
    """A log of so many samples; the number of its bytes."""
    folder.mkdir(parents=True)
    file = folder / f"samples_quiz_{DATE}.jsonl"
    with file.open("w") as stream:
        for n in range(count):
            right = n % 7 != wrong
            scores = [[str(-1.0 - (k != (0 if right else 1))), "False"] for k in range(4)]
            asked = {f"gen_args_{k}": {"arg_0": f"{PROMPT}{n}:", "arg_1": f" choice {k}"} for k in range(4)}
            line = {
                "doc_id": n, "doc": {"question": PROMPT, "subject": f"s{n % 50}"}, "target": "0", "arguments": asked,
                "filtered_resps": scores, "filter": "none", "metrics": ["acc"], "acc": float(right), "doc_hash": f"h{n}",
                "prompt_hash": f"p{n}",
            }  # fmt: skip
            stream.write(json.dumps(line) + "\n")
    head = {"model_name": folder.name, "results": {"quiz": {}}, "versions": {"quiz": 1}, "n-shot": {"quiz": 0}}
    (folder / f"results_{DATE}.json").write_text(json.dumps(head))
    return file.stat().st_size


def imported(base: str, aligned: str, out: str) -> None:
    """Import two logs, and print what it took."""
    from taxlens.analysis.logs.import_eval import import_eval

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    before, start = peak(), time.process_time()
    found = import_eval(base, aligned, out=out, bootstrap=200)
    print(f"{len(found.suite)} {peak() - before:.0f} {time.process_time() - start:.1f}")


def main() -> None:
    """Print a row a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--pair", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pair:
        imported(*options.pair)
        return
    print("samples  log MB (each)  peak memory beyond imports, MB  kB a sample  processor s")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            bytes_ = write_log(root / "base", size, wrong=8)
            write_log(root / "aligned", size, wrong=3)
            command = [
                sys.executable,
                "-m",
                "benchmarks.speed.log_memory",
                "--pair",
                str(root / "base"),
                str(root / "aligned"),
            ]
            found = subprocess.run(
                [*command, str(root / "out.jsonl")], check=True, capture_output=True, text=True
            ).stdout
        count, memory, seconds = found.split()[-3:]
        print(f"{count}  {bytes_ / 1e6:.0f}  {memory}  {float(memory) * 1e3 / size:.2f}  {seconds}")


if __name__ == "__main__":
    main()
