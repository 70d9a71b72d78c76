"""Where the time of a capture of all positions goes: the model, the copies, the checks, the hashes, the file; alone and together.

    python -m benchmarks.speed.capture_costs --model .cache/smollm2/base

One shard's batch of one model. "copies and file" runs the model with its hooks while another thread writes a shard of the same size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.speed_capture import random_suite
from taxlens.activations.capture.collect import fill, new_buffers, shaped
from taxlens.activations.capture.request import resolve
from taxlens.activations.capture.writer import all_finite
from taxlens.activations.hooks.hooks import run_backbone
from taxlens.activations.items.batches import pad
from taxlens.activations.items.tokens import pad_token
from taxlens.activations.models.loading import LoadedModel, load_model
from taxlens.activations.models.pair import make_pair
from taxlens.activations.store.direct_io import write_at
from taxlens.activations.store.shard import ShardFile, block_hashes


def pieces(loaded: LoadedModel, sequences: int, tokens: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Name -> one piece of the work on a batch of `sequences`."""
    pair = make_pair(loaded, loaded)
    suite = random_suite(loaded.tokenizer, sequences + 1, tokens)
    request = resolve(pair, suite, positions="all", batch_tokens=tokens * (sequences + 1))
    rows = [reading.base for reading in request.plan.readings]
    batches = {n: pad(rows[:n], pad_token(loaded.tokenizer)) for n in (2, sequences, sequences + 1)}
    n = int(request.plan.first_row[sequences])
    hot, other = (shaped(new_buffers(request, n), request, n) for _ in range(2))
    other["resid_post"].normal_()
    data, path = other["resid_post"].numpy(), folder / "shard.h5"

    def read(buffers: dict[str, torch.Tensor]) -> None:
        fill(loaded, request, model="base", span=(0, sequences), budget=tokens * (sequences + 1), buffers=buffers)

    def written() -> None:
        shard = ShardFile(path, request.plan.frame.iloc[:n], dtype="float32", layers=request.layers)
        shard.write("base", "resid_post", data)
        shard.close()
        with open(path, "rb+") as stream:
            os.fsync(stream.fileno())

    def bare(place: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            path.unlink(missing_ok=True)
            path.touch()
            place()
            with open(path, "rb+") as stream:
                os.fsync(stream.fileno())

        return run

    def together() -> None:
        thread = threading.Thread(target=written)
        thread.start()
        read(hot)
        thread.join()

    return {
        **{
            f"model alone, {k} sequences": lambda b=batch: run_backbone(loaded.anatomy, *b)
            for k, batch in batches.items()
        },
        "model and copies": lambda: read(hot),
        "model and copies, fresh memory": lambda: read(shaped(new_buffers(request, n), request, n)),
        "model, copies and file at once": together,
        "values checked": lambda: all(all_finite(plane, "float32") for plane in data),
        "hashes": lambda: block_hashes(data),
        "hashes, file and fsync": written,
        "bytes into a new file, through the page cache": bare(lambda: _through(path, data)),
        "bytes into a new file, past the page cache": bare(lambda: write_at(path, 0, data)),
    }


def _through(path: Path, data: np.ndarray) -> None:
    with open(path, "rb+", buffering=0) as stream:
        for plane in data:
            stream.write(plane.data)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".cache/smollm2/base")
    parser.add_argument("--sequences", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    loaded = load_model(given.model, device="cpu")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        found = pieces(loaded, given.sequences, given.tokens, Path(folder))
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for _ in range(given.repeats + 1):
            for name, run in found.items():
                start = time.perf_counter(), time.process_time()
                run()
                spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    print(f"{loaded}, {given.sequences} x {given.tokens} tokens, {torch.get_num_threads()} threads")
    for name, values in spent.items():
        clock, processor = (statistics.median(v[k] for v in values[1:]) for k in (0, 1))
        print(f"{name:<46}{clock:8.3f} s on the clock {processor:8.3f} s of processor")


if __name__ == "__main__":
    main()
