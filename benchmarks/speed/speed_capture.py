"""Capture against the bare forward pass and against other ways to read activations, in one run, medians.

    python benchmarks/speed/speed_capture.py --model .cache/smollm2/base

Every way runs in turn, `--repeats` times; a ratio is the median over the turns of the ratio within a turn. The floor is the
backbone's forward without the output head, before and after capture in every turn. Capture's figures include hashing, writing
and fsync of everything that is read; the other ways write nothing. `--sequences` are read in all, half of them by each model
of the pair. Beside the time on the clock stands processor time, which other work on the machine does not move.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.activations.capture.capture import _write_shards
from taxlens.activations.capture.request import resolve
from taxlens.activations.hooks.hooks import run_backbone
from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import encode_prompts, pad_token
from taxlens.activations.models.loading import LoadedModel, copy_sharing, load_model
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.core.progress import SILENT

FLOOR, OURS = "bare backbone (the floor)", "capture, all positions, to disk"
LAST = "capture, last position, to disk"
TARGETS = {OURS: 1.05, LAST: 1.02}  # at most so many times the floor
FASTER = {"output_hidden_states": 1.2, "bridge run_with_cache": 1.25, "nnsight trace": 1.25}  # than capture, at least
Way = Callable[[], None]


def random_suite(tokenizer: Any, sequences: int, tokens: int) -> Suite:
    """Texts of about `tokens` tokens each: single-token words joined, cut to length."""
    generator = np.random.default_rng(0)
    words = [tokenizer.decode([i]) for i in range(min(1000, len(tokenizer) // 2), min(5000, len(tokenizer)))]
    words = [" " + w.strip() for w in words if w.strip().isascii() and w.strip().isalnum()]
    items = []
    for number in range(sequences):
        ids = tokenizer.encode("".join(generator.choice(words, size=tokens)))[:tokens]
        items.append(Item(id=str(number), group=str(number), text=tokenizer.decode(ids, skip_special_tokens=True)))
    return Suite(name="random", items=tuple(items))


def captured(pair: ModelPair, suite: Suite, positions: str, budget: int, shard_bytes: int) -> Way:
    """A capture of both models, all layers' resid_post, float32, to disk; the self-check before it is left out."""
    request = resolve(pair, suite, positions=positions, batch_tokens=budget, shard_bytes=shard_bytes)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            _write_shards(pair, request, Path(folder), {"shards": []}, SILENT)

    return run


def ways(pair: ModelPair, suite: Suite, budget: int, shard_bytes: int) -> dict[str, Way]:
    """Name -> something that runs both models over the suite, and reads all layers' resid_post or nothing."""
    loaded = pair.base
    rows = encode_prompts(suite, loaded.tokenizer)
    padded = [pad([rows[i] for i in b], pad_token(loaded.tokenizer)) for b in pack(rows, batch_tokens=budget)]
    batches = [tuple(x.to(loaded.device) for x in batch) for batch in padded]
    names = {f"blocks.{layer}.hook_resid_post" for layer in range(loaded.anatomy.n_layers)}
    bridge = loaded.bridge()

    def twice(one: Callable[..., object]) -> Way:
        def run() -> None:
            with torch.no_grad():
                for batch in [*batches, *batches]:
                    one(*batch)
            if loaded.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def full(ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, **options: bool) -> object:
        return loaded.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **options)

    def cached(ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> object:
        return bridge.run_with_cache(
            ids, attention_mask=mask, position_ids=positions, names_filter=lambda name: name in names
        )

    return {
        FLOOR: twice(lambda *batch: run_backbone(loaded.anatomy, *batch)),
        OURS: captured(pair, suite, "all", budget, shard_bytes),
        LAST: captured(pair, suite, "last", budget, shard_bytes),
        "output_hidden_states": twice(lambda *batch: full(*batch, output_hidden_states=True)),
        "bridge run_with_cache": twice(cached),
        **nnsight_way(loaded, twice),
    }


def nnsight_way(loaded: LoadedModel, twice: Callable[[Callable[..., object]], Way]) -> dict[str, Way]:
    """The same sites traced by nnsight, where it is installed (benchmark extra), on a copy that shares the weights."""
    try:
        import nnsight
    except ImportError:
        print("nnsight is not installed: pip install taxlens[benchmark] to compare with it.")
        return {}
    traced = nnsight.LanguageModel(copy_sharing(loaded.model), tokenizer=loaded.tokenizer)

    def trace(ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with traced.trace(inputs, use_cache=False):
            for block in traced.model.layers:
                kept.append(block.output.save())
        return kept

    ids = torch.tensor([[1, 2, 3]], device=loaded.device)
    found = trace(ids, torch.ones_like(ids), torch.arange(3, device=loaded.device)[None])
    if len(found) != loaded.anatomy.n_layers:
        raise RuntimeError(f"nnsight returned {len(found)} layers of {loaded.anatomy.n_layers}")
    return {"nnsight trace": twice(trace)}


def timed(found: dict[str, Way], repeats: int, minutes: float) -> dict[str, list[tuple[float, float]]]:
    """(Seconds on the clock, seconds of processor) of every way, interleaved; the floor before and after capture."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    after: list[tuple[float, float]] = []
    began = time.monotonic()
    for turn in range(repeats):
        if turn and (time.monotonic() - began) * (turn + 1) / turn > 60 * minutes:
            print(f"stopped after {turn} turns: another would go beyond {minutes:g} minutes", file=sys.stderr)
            break
        for name, run in found.items():
            spent[name].append(once(run))
            if name == LAST:
                after.append(once(found[FLOOR]))
        print(f"turn {turn + 1}: " + ", ".join(f"{v[-1][0]:.2f}" for v in spent.values()), file=sys.stderr)
    if after:
        spent[FLOOR] = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in zip(spent[FLOOR], after, strict=True)]
    return spent


def once(run: Way) -> tuple[float, float]:
    """Seconds on the clock and of the processor that one way takes."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compared(spent: dict[str, list[tuple[float, float]]], one: str, other: str) -> tuple[float, float]:
    """Median over the turns of what `one` takes as a multiple of `other`: on the clock, and of the processor."""
    pairs = list(zip(spent[one], spent[other], strict=True))
    return statistics.median(a[0] / b[0] for a, b in pairs), statistics.median(a[1] / b[1] for a, b in pairs)


def peak_above_model(model: str, sequences: int, tokens: int, budget: int, shard_bytes: int) -> dict[str, float]:
    """Capture in this process, and return the peak resident megabytes above those of the loaded model."""
    loaded = load_model(model)
    pair = make_pair(loaded, loaded)
    suite = random_suite(loaded.tokenizer, sequences, tokens)
    request = resolve(pair, suite, positions="all", batch_tokens=budget, shard_bytes=shard_bytes)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    with tempfile.TemporaryDirectory(dir=".") as folder:
        _write_shards(pair, request, Path(folder), {"shards": []}, SILENT)
    return {"written": request.total_bytes / 1e6, "peak": resident("VmHWM") - before}


def resident(field: str) -> float:
    """Megabytes that /proc says of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def memory(given: argparse.Namespace) -> list[dict[str, float]]:
    """Peak memory above the model for a number of items and eight times as many, each in a process of its own."""
    out = []
    for factor in (1, 8):
        options = [f"--model={given.model}", f"--tokens={given.tokens}", f"--batch-tokens={given.memory_batch_tokens}"]
        options += [f"--shard-bytes={64 * 2**20}", f"--peak-of={given.memory_sequences * factor}"]
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
        out.append({"sequences": given.memory_sequences * factor, **json.loads(done.stdout.splitlines()[-1])})
    return out


def bus_rate() -> float:
    """Bytes a second from the CUDA device to pinned memory."""
    x = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    host = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    host.copy_(x)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(4):
        host.copy_(x, non_blocking=True)
    torch.cuda.synchronize()
    return 4 * 2**28 / (time.perf_counter() - start)


def device_words(loaded: LoadedModel, tokens: int, size: int, seconds: float) -> str:
    """What the same run says of a CUDA device; that there is none, without one."""
    if loaded.device.type != "cuda":
        return "no CUDA device here: no device figures."
    bus = bus_rate()
    return (
        f"{torch.cuda.get_device_name()}: {tokens / seconds:.0f} tokens/s, {size / seconds / 1e9:.2f} GB/s captured, "
        f"{size / seconds / bus:.0%} of the {bus / 1e9:.1f} GB/s that the bus carries"
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".cache/smollm2/base")
    parser.add_argument("--sequences", type=int, default=64, help="in all, half of them by each model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--shard-bytes", type=int, default=256 * 2**20)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=8.0, help="start no turn that would end later")
    parser.add_argument("--only", nargs="*", help="time only ways whose names hold one of these words, and the floor")
    parser.add_argument("--memory-sequences", type=int, default=8, help="0: no memory figures")
    parser.add_argument("--memory-batch-tokens", type=int, default=512)
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = parsed()
    if given.peak_of:
        found = peak_above_model(given.model, given.peak_of, given.tokens, given.batch_tokens, given.shard_bytes)
        print(json.dumps(found))
        return
    loaded = load_model(given.model)
    pair = make_pair(loaded, loaded)
    suite = random_suite(loaded.tokenizer, given.sequences // 2, given.tokens)
    found = ways(pair, suite, given.batch_tokens, given.shard_bytes)
    if given.only:
        found = {name: run for name, run in found.items() if name == FLOOR or any(w in name for w in given.only)}
    load = os.getloadavg()[0]
    found[FLOOR]()  # warms up
    spent = timed(found, given.repeats, given.minutes)
    tell(loaded, given, spent, load)
    sizes = memory(given) if given.memory_sequences else []
    for size in sizes:
        print(f"peak memory above the model, {size['sequences']} sequences for each of two models, "
              f"{size['written']:.0f} MB written: {size['peak']:.0f} MB")  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps({"seconds": spent, "memory": sizes, "load": load}, indent=1) + "\n")


def tell(
    loaded: LoadedModel, given: argparse.Namespace, spent: dict[str, list[tuple[float, float]]], load: float
) -> None:
    """Print every time, every ratio, and the targets."""
    print(f"{loaded}, {given.sequences} x {given.tokens} tokens, {torch.get_num_threads()} threads")
    print(f"load average before: {load:.1f} (1 would be one busy core)")
    for name, values in spent.items():
        limit = f", target at most {TARGETS[name]}" if name in TARGETS else ""
        clock, processor = compared(spent, name, FLOOR)
        median = statistics.median(v[0] for v in values)
        print(f"{name:<33}{median:7.2f} s  {clock:5.3f} x the floor, {processor:5.3f} x its processor time "
              f"(of {len(values)}){limit}")  # fmt: skip
    if OURS not in spent:
        return
    for name, least in FASTER.items():
        if name in spent:
            clock, processor = compared(spent, name, OURS)
            print(f"capture to disk is {clock:.2f} x as fast as {name} ({processor:.2f} by processor time), "
                  f"target at least {least}")  # fmt: skip
    tokens = given.sequences * given.tokens
    size = tokens * loaded.anatomy.n_layers * loaded.anatomy.d_model * 4
    print(device_words(loaded, tokens, size, statistics.median(v[0] for v in spent[OURS])))


if __name__ == "__main__":
    main()
