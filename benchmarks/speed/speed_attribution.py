"""What one gradient of the weight path costs, against plain passes and against one JVP per component.

    python -m benchmarks.speed.speed_attribution                       # small random Llama
    python -m benchmarks.speed.speed_attribution --base DIR --adapter DIR --suite FILE [--whole]

Everything is timed in one process, interleaved, median of `--repeats`; ratios are printed, absolute times are this
machine's. Peak memory is what a job adds to the process at its highest (Linux). `--whole` attributes 6,000 tokens of
the suite at component, head and singular level.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite, read_suite
from taxlens.activations.items.tokens import Row, encode_suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import load_pair, make_pair
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import ItemShard, differentiate, score_shard, shard_of
from taxlens.analysis.weights.units import difference_of

TOKENS = 6000


def random_pair(layers: int, width: int) -> Any:
    """A random Llama and a copy with a rank-8 change in every matrix of its blocks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256,
    )  # fmt: skip
    base = LlamaForCausalLM(config).eval().requires_grad_(False)
    base.set_attn_implementation("eager")
    aligned = copy.deepcopy(base)
    for name, p in aligned.named_parameters():
        if "layers" in name and p.dim() == 2:
            p.data += 0.02 * torch.randn(p.shape[0], 8) @ torch.randn(8, p.shape[1])
    ends = [
        LoadedModel(m, words(), n, n, None, torch.device("cpu"), "float32")
        for n, m in (("base", base), ("aligned", aligned))
    ]
    return make_pair(*ends)


def words() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of 2,048 words."""
    names = {f"w{n}": n for n in range(2048)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="w0")), unk_token="w0")


def random_rows(count: int, length: int) -> list[Row]:
    """Rows of random tokens, the last one scored."""
    ids = torch.randint(0, 2048, (count, length)).tolist()
    return [Row(n, 0, tuple(row), length - 1, "choice") for n, row in enumerate(ids)]


def plain(model: Any, shard: ItemShard, *, weights: bool) -> None:
    """Forward and backward of the same scores, with gradients for every weight (or for none but the input)."""
    model.requires_grad_(weights)
    for bundle in shard.bundles:
        with torch.enable_grad():
            if not weights:
                handle = model.get_input_embeddings().register_forward_hook(_start)
            for _, (_, target), _, at in bundle.lanes:
                logits = bundle.logits(model)
                score = torch.log_softmax(logits[at], -1).gather(1, target[:, None]).sum()
                score.backward()
            if not weights:
                handle.remove()
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None


def _start(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def jvp(model: Any, shard: ItemShard, along: dict[str, torch.Tensor]) -> None:
    """Forward-mode differentiation along one component's change."""
    held = {name: dict(model.named_parameters())[name].detach() for name in along}
    bundle = shard.bundles[0]

    def scores(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {"input_ids": bundle.ids, "attention_mask": bundle.mask, "position_ids": bundle.positions}
        logits = torch.func.functional_call(model, weights, args=(), kwargs={**inputs, "use_cache": False}).logits
        return torch.log_softmax(logits[bundle.asked[:, 0], bundle.asked[:, 1]], -1).sum()

    torch.func.jvp(scores, (held,), (along,))


def timed(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each job, interleaved, in CPU time of this process (so that a busy machine matters less)."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def node_costs(pair: Any, rows: list[Row], repeats: int, batch_tokens: int) -> None:
    """Print what one node costs at several sets of levels, against plain passes and JVPs."""
    shard = shard_of(pair.base, rows, batch_tokens=batch_tokens)
    difference = difference_of(pair)
    model = pair.base.model
    print(
        f"{len(rows)} rows, {shard.n_tokens} tokens, {len(shard.bundles)} batches, {len(difference.units('component'))} components"
    )
    jobs: dict[str, Callable[[], Any]] = {
        "forward": lambda: score_shard(model, shard),
        "forward + backward, weight gradients": lambda: plain(model, shard, weights=True),
        "forward + backward, no weight gradients": lambda: plain(model, shard, weights=False),
    }
    for levels in (("component",), ("component", "head", "singular")):
        contraction = Contraction(model, difference, levels)

        def node(contraction: Contraction = contraction) -> None:
            with contraction:
                differentiate(model, shard, contraction)

        jobs[f"node: {', '.join(levels)}, tokens"] = node
    ends = [dict(m.model.named_parameters()) for m in (pair.base, pair.aligned)]
    down = [n for n in ends[0] if "down_proj" in n or "mlp.c_proj" in n][-1]
    jobs["one JVP (one component, one batch)"] = lambda: jvp(
        model, shard, {down: (ends[1][down] - ends[0][down]).detach()}
    )
    seconds = timed(jobs, repeats)
    whole = seconds["forward + backward, weight gradients"]
    for name, value in seconds.items():
        print(f"  {name:48s} {value:8.3f} s   {value / whole:6.2f} x plain")
    node_seconds = seconds["node: component, tokens"]
    for name in list(jobs)[1:-1]:
        print(f"  {name:48s} {peak(jobs[name]) / 2**20:8.0f} MB at its highest")
    sixty = 60 * seconds["one JVP (one component, one batch)"] * len(shard.bundles)
    print(f"  60 JVPs against one node: {sixty / node_seconds:.1f} x")


def peak(job: Callable[[], Any]) -> int:
    """Bytes that a job adds to the process at its highest."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 1 << 16)  # large blocks go back to the system when they are freed
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = memory("VmRSS")
    job()
    return memory("VmHWM") - before


def memory(name: str) -> int:
    """A figure of this process's memory, bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def whole(pair: Any, suite: Suite) -> None:
    """Attribute about TOKENS tokens of a suite and print time, memory, gradients and closure."""
    rows = encode_suite(suite, pair.base.tokenizer)
    read, last = 0, 0
    for row in rows:
        if read >= TOKENS:
            break
        read, last = read + len(row.ids) - 1, row.item
    part = suite.subset(range(last + 1))
    wall, cpu = time.perf_counter(), time.process_time()
    found = attribute(pair, part, levels=("component", "head", "singular"))
    print(
        f"whole: {len(part)} items, {read} tokens: {time.perf_counter() - wall:.0f} s wall, {time.process_time() - cpu:.0f} s CPU"
    )
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    print(found.closure_frame().to_string(index=False))


def main() -> None:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--aligned", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--whole", action="store_true")
    asked = parser.parse_args()
    if asked.base is None:
        node_costs(random_pair(8, 256), random_rows(32, 32), asked.repeats, asked.batch_tokens)
        return
    pair = load_pair(asked.base, asked.aligned, adapter=asked.adapter)
    suite = (
        read_suite(asked.suite)
        if asked.suite
        else Suite("one", (Item("a", "a", "The sky is", choices=(" blue", " up"), gold=0),))
    )
    if asked.whole:
        whole(pair, suite)
        return
    rows = encode_suite(suite.subset(range(min(asked.items, len(suite)))), pair.base.tokenizer)
    node_costs(pair, rows, asked.repeats, asked.batch_tokens)


if __name__ == "__main__":
    main()
