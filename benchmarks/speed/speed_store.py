"""The store against a raw numpy.memmap of the same bytes, and against kill -9; ratios in one run, medians.

python benchmarks/speed/speed_store.py
python benchmarks/speed/speed_store.py --kills 25
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from taxlens.activations.capture.writer import temporary
from taxlens.activations.store.direct_io import page_aligned
from taxlens.activations.store.manifest import write_manifest
from taxlens.activations.store.shard import FORMAT, MODELS, VERSION, ShardFile
from taxlens.activations.store.store import Store
from taxlens.core.artifacts import fsync_folder


def frame_of(rows: int) -> pd.DataFrame:
    """A row index of the usual size."""
    numbers = np.arange(rows)
    text = {
        name: np.array([f"{name}{n % 97}" for n in numbers], dtype=object)
        for name in ("suite", "item", "group", "token")
    }
    return pd.DataFrame({**text, "choice": numbers % 3, "position": numbers, "correct": numbers % 2 * 1.0})


def write_shard(path: Path, frame: pd.DataFrame, data: np.ndarray) -> dict:
    """One shard as capture writes it: hashed, flushed, synchronised, renamed."""
    shard = ShardFile(temporary(path), frame, dtype="float32", layers=range(data.shape[0]))
    for model in MODELS:
        shard.write(model, "resid_post", data)
    entry = shard.close()
    with open(shard.path, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(shard.path, path)
    fsync_folder(path.parent)
    return entry


def write_memmap(path: Path, data: np.ndarray) -> None:
    """The same bytes through numpy.memmap, flushed and synchronised."""
    mapped = np.memmap(path, dtype=np.float32, mode="w+", shape=(2, *data.shape))
    for model in range(2):
        mapped[model] = data
    mapped.flush()
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def writing(folder: Path, repeats: int) -> None:
    """Speed of writing one shard of 256 MB."""
    data = page_aligned(30 * 1940 * 576, torch.float32).normal_().numpy().reshape(30, 1940, 576)  # as capture's buffers
    frame, seconds = frame_of(data.shape[1]), {"store": [], "memmap": []}
    for _ in range(repeats):
        for name, run in (
            ("store", lambda: write_shard(folder / "shard.h5", frame, data)),
            ("memmap", lambda: write_memmap(folder / "raw.bin", data)),
        ):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
            for path in folder.iterdir():
                path.unlink()
    size = 2 * data.nbytes / 1e6
    one, two = (statistics.median(seconds[name]) for name in ("store", "memmap"))
    print(f"write {size:.0f} MB, fsync included: store {size / one:.0f} MB/s, memmap {size / two:.0f} MB/s, "
          f"ratio {two / one:.2f}")  # fmt: skip


def reading(folder: Path, repeats: int, rows: int = 20_000, per_shard: int = 970, layers: int = 3) -> None:
    """Speed of reading one layer of many rows; every block's checksum is checked on the way."""
    generator = np.random.default_rng(0)
    mapped = np.memmap(folder / "raw.bin", dtype=np.float32, mode="w+", shape=(2, layers, rows, 576))
    shards = []
    store = folder / "acts.shards"
    store.mkdir()
    for index, first in enumerate(range(0, rows, per_shard)):
        n = min(per_shard, rows - first)
        data = generator.standard_normal((layers, n, 576), dtype=np.float32)
        mapped[:, :, first : first + n] = data
        entry = write_shard(store / f"shard-{index:05d}.h5", frame_of(n), data)
        shards.append({**entry, "index": index, "file": f"shard-{index:05d}.h5", "first_row": first, "rows": n})
    mapped.flush()
    write_manifest(store, {
        "format": FORMAT, "format_version": VERSION, "complete": True, "identity": {"sites": ["resid_post"]},
        "rows": rows, "sites": {"resid_post": [576]}, "layers": list(range(layers)), "dtype": "float32",
        "shards": shards, "n_shards": len(shards),
    })  # fmt: skip
    seconds: dict[str, list[float]] = {"first": [], "store": [], "memmap": []}
    for repeat in range(repeats):
        opened = Store.open(store)
        for name in ("first", "store", "memmap"):
            layer = repeat % layers
            start = time.perf_counter()
            if name == "memmap":
                raw = np.memmap(folder / "raw.bin", dtype=np.float32, mode="r", shape=(2, layers, rows, 576))
                np.array(raw[0, layer])
            else:
                opened.read("resid_post", layer)
            seconds[name].append(time.perf_counter() - start)
        opened.close()
    first, again, raw_read = (statistics.median(values) * 1e3 for values in seconds.values())
    print(f"read one layer of {rows} rows from {len(shards)} shards (warm cache): store {again:.1f} ms "
          f"({first:.1f} ms with opening), memmap {raw_read:.1f} ms, ratio {raw_read / again:.2f} "
          f"({raw_read / first:.2f} with opening)")  # fmt: skip


def killing(folder: Path, kills: int) -> None:
    """Kill a capture at random moments until it finishes, over and over; compare with an uninterrupted one."""
    import torch

    from taxlens import demo
    from taxlens.activations.capture.capture import capture
    from taxlens.activations.items.items import read_suite
    from taxlens.activations.models.pair import load_pair

    torch.set_num_threads(1)
    pair = load_pair(demo.resolve("demo:base"), demo.resolve("demo:planted"), device="cpu")
    suite = read_suite(demo.resolve_suite("demo:facts")).subset(range(40))

    def run(to: Path, *, resume: bool) -> None:
        capture(pair, suite, to=to, positions="all", shard_bytes=60_000, resume=resume).close()

    run(folder / "whole" / "acts.h5", resume=False)  # boots the bridges: slower than what follows
    start = time.perf_counter()
    run(folder / "timed" / "acts.h5", resume=False)
    usual = time.perf_counter() - start
    truth, dice, died, same = contents(folder / "whole"), random.Random(0), 0, 0
    while died < kills:
        to = folder / "killed"
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        child = os.fork()
        if not child:
            run(to / "acts.h5", resume=False)
            os._exit(0)
        time.sleep(dice.uniform(0.05, 1.0) * usual)
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            continue
        died += 1
        run(to / "acts.h5", resume=True)
        same += contents(to) == truth
    print(f"killed {died} times at random moments: {same} of {died} resumed to identical bytes")


def contents(folder: Path) -> dict[str, str]:
    """Every file's hash."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0, help="only kill and resume, this many times")
    given = parser.parse_args()
    print(f"load average of the machine before: {os.getloadavg()[0]:.1f} (1 would be one busy core)")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        if given.kills:
            killing(folder, given.kills)
            return
        writing(folder, given.repeats)
        reading(folder, given.repeats)


if __name__ == "__main__":
    main()
