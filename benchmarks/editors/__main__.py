"""Every editor on the same items: `python -m benchmarks.editors` (embedded pairs), `... real --seeds 0 1 2` (SmolLM2).

    python -m benchmarks.editors                         # three embedded pairs, all editors; about ten minutes of processor a pair
    python -m benchmarks.editors refusal --editors joint repair
    python -m benchmarks.editors real --seeds 0 --editors joint repair path     # about 40 minutes of processor a seed
    python -m benchmarks.editors --page                  # docs/editors-table.md from what is kept, nothing is measured

Rows are kept under .cache/editors as soon as they are measured: a killed run goes on. Results go to --out as JSON and CSV.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.editors.answers import CACHE
from benchmarks.editors.embedded import NO_ERROR, PAIRS, embedded_measure, embedded_pair, embedded_task
from benchmarks.editors.page import write_page, write_results
from benchmarks.editors.real_pair import kept_editor, real_measure, real_pair, real_task
from taxlens.analysis.editors.compare import EditorComparison, compare_editors
from taxlens.analysis.editors.registry import EDITORS

REAL_EDITORS = ("repair", "joint", "path", "relearn", "replay", "false_refusal", "ablate", "interpolation")
"""What a real pair is given where nothing is named: each costs minutes of answers."""


def compared(name: str, editors: list[str], tries: int) -> EditorComparison:
    """The editors on one pair, by its name ("refusal", "selective-0")."""
    real = name.startswith("selective-")
    pair = real_pair(int(name.removeprefix("selective-"))) if real else embedded_pair(name)
    task = real_task(pair) if real else embedded_task(pair)
    held = real_measure(task, int(name.removeprefix("selective-"))) if real else embedded_measure(task)
    chosen: list[Any] = [kept_editor(one) for one in editors] if real else list(editors)
    error = None if real else NO_ERROR
    return compare_editors(task, chosen, held, tries=tries, folder=CACHE / "rows", error=error)


def main() -> None:
    """Measure what is missing, editor by editor, and write JSON, CSV and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), help="embedded pairs, or real")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="adapters of the real pair")
    parser.add_argument("--editors", nargs="*", default=None)
    parser.add_argument("--tries", type=int, default=3, help="settings that every editor may try")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/editors/results"))
    parser.add_argument("--page", action="store_true", help="write the page from the results and measure nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.page:
        names = [f"selective-{s}" for p in args.pairs for s in args.seeds if p == "real"]
        for name in names or args.pairs:
            begun = time.process_time()
            editors = args.editors or list(REAL_EDITORS if names else EDITORS)
            found = compared(name, editors, args.tries)
            write_results(found, name, args.out, error=None if names else NO_ERROR)
            print(f"{name}: {time.process_time() - begun:.0f} s of processor\n{found}", flush=True)
    write_page(args.out)


if __name__ == "__main__":
    main()
