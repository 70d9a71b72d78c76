"""Capture against the bare forward pass and against other ways to read activations, in one run, medians.

    python benchmarks/speed_capture.py --model .cache/smollm2/base

Every way runs in turn, `--repeats` times; ratios are to the backbone's forward without the output head in the same run.
Capture's figure includes writing both models' shards to disk, fsync included; the others write nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from taxlens.activations.capture import _write_shards
from taxlens.activations.hooks import run_backbone
from taxlens.activations.items import Item, Suite
from taxlens.activations.loading import load_model
from taxlens.activations.pair import ModelPair, make_pair
from taxlens.activations.request import resolve
from taxlens.activations.selfcheck import self_check
from taxlens.activations.tokens import encode_prompts, pack, pad, pad_token


def random_suite(tokenizer, sequences: int, tokens: int) -> Suite:
    """Texts of exactly `tokens` tokens each (single-token words joined; trimmed by re-encoding)."""
    generator = np.random.default_rng(0)
    words = [tokenizer.decode([i]) for i in range(1000, 5000)]
    words = [w for w in words if w.startswith(" ") and w.strip().isascii() and w.strip().isalpha()]
    items = []
    for number in range(sequences):
        ids = tokenizer.encode("".join(generator.choice(words, size=tokens)))[:tokens]
        items.append(Item(id=str(number), group=str(number), text=tokenizer.decode(ids, skip_special_tokens=True)))
    return Suite(name="random", items=tuple(items))


def batches_of(loaded, suite: Suite, budget: int) -> list[tuple[torch.Tensor, ...]]:
    """The suite as padded batches on the model's device."""
    rows = encode_prompts(suite, loaded.tokenizer)
    padded = [pad([rows[i] for i in b], pad_token(loaded.tokenizer)) for b in pack(rows, batch_tokens=budget)]
    return [tuple(x.to(loaded.device) for x in batch) for batch in padded]


def captured(pair: ModelPair, suite: Suite, positions: str, budget: int) -> Callable[[], None]:
    """A capture of both models, all layers' resid_post, float32, without the self-check (timed apart)."""
    request = resolve(pair, suite, positions=positions, batch_tokens=budget)

    def run() -> None:
        from taxlens.core.progress import SILENT

        with tempfile.TemporaryDirectory(dir=".") as folder:
            _write_shards(pair, request, Path(folder), {"shards": []}, SILENT)

    return run


@torch.no_grad()
def ways(pair: ModelPair, suite: Suite, budget: int) -> dict[str, Callable[[], None]]:
    """Name -> something that reads (or does not read) the activations of both models."""
    loaded = pair.base
    batches = batches_of(loaded, suite, budget)
    names = {f"blocks.{layer}.hook_resid_post" for layer in range(loaded.anatomy.n_layers)}

    def twice(one: Callable[..., object]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                for _ in range(2):
                    for batch in batches:
                        one(*batch)
            if loaded.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def with_logits(ids, mask, positions):
        return loaded.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)

    def hidden_states(ids, mask, positions):
        return loaded.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
        )

    def cached(ids, mask, positions):
        return loaded.bridge().run_with_cache(
            ids, attention_mask=mask, position_ids=positions, names_filter=lambda name: name in names
        )

    found = {
        "backbone forward (floor)": twice(lambda *batch: run_backbone(loaded.anatomy, *batch)),
        "capture, all positions, to disk": captured(pair, suite, "all", budget),
        "capture, last position, to disk": captured(pair, suite, "last", budget),
        "forward with logits": twice(with_logits),
        "output_hidden_states": twice(hidden_states),
        "bridge run_with_cache": twice(cached),
    }
    return found | nnsight_way(loaded, twice)


def nnsight_way(loaded, twice) -> dict[str, Callable[[], None]]:
    """The same sites traced by nnsight, where it is installed (benchmark extra)."""
    try:
        from nnsight import LanguageModel
    except ImportError:
        print("nnsight is not installed: pip install taxlens[benchmark] to compare with it.")
        return {}
    traced = LanguageModel(loaded.model, tokenizer=loaded.tokenizer)

    def trace(ids, mask, positions):
        kept = []
        with traced.trace({"input_ids": ids, "attention_mask": mask, "position_ids": positions}):
            for block in traced.model.layers:
                kept.append(block.output.save())
        return kept

    return {"nnsight trace": twice(trace)}


def timed(found: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every way, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for name, run in found.items():
        if "capture" not in name:
            run()  # warm up
    for _ in range(repeats):
        for name, run in found.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose last entry is the peak resident memory (bytes) above that at the start."""
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    start, out, stop = resident(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            out.append(max(out[-1], resident() - start))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield out
    finally:
        stop.set()
        thread.join()


def memory(pair: ModelPair, sequences: int, tokens: int, budget: int) -> dict[str, float]:
    """Peak megabytes above the models, for a number of items and eight times as many."""
    out = {}
    for factor in (1, 8):
        suite = random_suite(pair.base.tokenizer, sequences * factor, tokens)
        request = resolve(pair, suite, positions="all", batch_tokens=budget, shard_bytes=64 * 2**20)
        with peak_memory() as peak, tempfile.TemporaryDirectory(dir=".") as folder:
            from taxlens.core.progress import SILENT

            _write_shards(pair, request, Path(folder), {"shards": []}, SILENT)
        out[f"{sequences * factor} sequences, {request.total_bytes / 1e6:.0f} MB written"] = peak[-1] / 1e6
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".cache/smollm2/base")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loaded = load_model(given.model)
    pair = make_pair(loaded, loaded)
    suite = random_suite(loaded.tokenizer, given.sequences, given.tokens)
    request = resolve(pair, suite, positions="all", batch_tokens=given.batch_tokens)
    start = time.perf_counter()
    checks = self_check(loaded, request.check_rows("base"), request.asked)
    check_seconds = time.perf_counter() - start
    found = ways(pair, suite, given.batch_tokens)
    load = os.getloadavg()[0]
    seconds = timed(found, given.repeats)
    floor = statistics.median(seconds["backbone forward (floor)"])
    print(f"{loaded}, {given.sequences} x {given.tokens} tokens, two models, {torch.get_num_threads()} threads")
    print(f"load average of the machine before: {load:.1f} (1 would be one busy core)")
    print(f"self-check of one model: {check_seconds:.1f} s, {len(checks)} checks")
    result = {}
    for name, values in seconds.items():
        median = statistics.median(values)
        result[name] = {"seconds": values, "ratio": median / floor}
        print(f"{name:<36} {median:8.2f} s   {median / floor:5.2f} x the floor   (of {len(values)})")
    ours = statistics.median(seconds["capture, all positions, to disk"])
    for name in ("output_hidden_states", "bridge run_with_cache", "nnsight trace"):
        if name in seconds:
            print(f"capture to disk is {statistics.median(seconds[name]) / ours:.2f} x as fast as {name}")
    sizes = memory(pair, 8, given.tokens, given.batch_tokens)
    for name, megabytes in sizes.items():
        print(f"peak memory above the models, {name}: {megabytes:.0f} MB")
    if loaded.device.type == "cuda":
        rate = 2 * given.sequences * given.tokens / ours
        print(
            f"{torch.cuda.get_device_name()}: {rate:.0f} tokens/s, {request.total_bytes / ours / 1e9:.2f} GB/s to disk"
        )
    else:
        print("no CUDA device here: no device figures.")
    if given.json:
        given.json.write_text(json.dumps({"ways": result, "memory": sizes, "load": load}, indent=1) + "\n")


if __name__ == "__main__":
    main()
