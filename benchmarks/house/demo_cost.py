"""What the demo costs: wall-clock seconds, processor seconds and peak memory of `taxlens demo` in a process of its own.

Run: python -m benchmarks.house.demo_cost [--pair NAME]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the demo and print what it took."""
    command = [str(Path(sys.executable).with_name("taxlens")), "demo", *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime
    print(f"{seconds:.0f} s wall clock, {busy:.0f} s of processor, peak memory {used.ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
