"""Tax, capture, attribution by component and by singular triple, and plans of a random bfloat16 pair, on a CPU.

OMP_NUM_THREADS=2 python -m benchmarks.speed.one_billion --size 1B          (24 GB; the items are few: see --items)
OMP_NUM_THREADS=1 python -m benchmarks.speed.one_billion --size tiny        (the same steps in seconds)

Prints for each step its minutes of processor time and the peak of resident and of anonymous memory, models included.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.device import SIZES, random_pair, suite
from taxlens.activations.capture.capture import capture
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.tax.tax import measure_tax
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of


def memory() -> tuple[int, int]:
    """Bytes of this process that are resident, and of these the anonymous ones."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return found["VmRSS"], found["RssAnon"]


def watched(name: str, work: Callable[[], object]) -> None:
    """Do a step and print what it took."""
    peak, over = list(memory()), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[:] = map(max, peak, memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    start = time.process_time()
    work()
    minutes = (time.process_time() - start) / 60
    over.set()
    thread.join()
    print(f"| {name} | {minutes:.2f} | {peak[0] / 1e9:.2f} | {peak[1] / 1e9:.2f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1B", choices=sorted(SIZES))
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--words", type=int, default=8)
    parser.add_argument("--plans", type=int, default=2)
    given = parser.parse_args()
    pair = random_pair(given.size, "full", torch.device("cpu"), torch.bfloat16)
    one = sum(p.numel() * p.element_size() for p in pair.base.model.parameters())
    print(f"one model {one / 1e9:.2f} GB\n\n| step | minutes | resident GB | anonymous GB |\n|---|---|---|---|")
    asked = suite(given.items, given.words)
    options = {"max_gradients": 3, "perplexity": False, "bootstrap": 50, "metrics": ("nll",)}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.h5"
        watched("tax", lambda: measure_tax(pair, asked, templates=("plain",), bootstrap=50))
        watched("capture, last", lambda: capture(pair, asked, to=store, templates=("plain",)).close())
    watched("attribute, component", lambda: attribute(pair, asked, levels=("component",), **options))
    watched("attribute, singular", lambda: attribute(pair, asked, levels=("component", "singular"), **options))
    units = list(difference_of(pair).units("singular"))

    def plans() -> None:
        for number in range(given.plans):
            undo = dict.fromkeys(units[number :: 20 * given.plans], 1.0)
            with mixture(pair, undo, difference=difference_of(pair), level="singular") as model:
                pair_measure(model)

    def pair_measure(model: object) -> None:
        from taxlens.analysis.scoring.evaluator import ChoiceMeasure

        ChoiceMeasure(pair, (asked,))(model)

    watched(f"{given.plans} plans", plans)


if __name__ == "__main__":
    main()
