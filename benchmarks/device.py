"""What this machine's device does with 1B and 8B pairs: one script, eight minutes, a JSON file and one page.

python -m benchmarks.device --out runs/device          (a machine with a GPU)
python -m benchmarks.device --out runs/device --tiny   (the same steps on a pair of a few thousand weights, on the CPU)

The pairs are random Llama layouts in bfloat16, made here: nothing is fetched. A LoRA pair differs by products of rank
16, a full pair in every weight. Each step is timed alone, after one small warm-up; one that fails or finds the time
used up says so in its row, and the others go on. Shares are of the rate that the device reaches on a large product of
matrices, measured first. Host waits are counted where the device can tell (CUDA's synchronisation debugging).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.capture.capture import capture
from taxlens.activations.items.batches import pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel, copy_sharing
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import differentiate, shard_of
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import difference_of

WORDS = 400
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 256,
    },
    "1B": {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 4096,
    },
    "8B": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 4096,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One step of one pair.

    Args:
        size, kind, step: which pair ("1B", "lora") and what was done.
        seconds: wall time.
        gigabytes: peak of the device's memory during the step (of this process's, on a CPU: nan).
        share: of the measured matrix rate, by 2 operations a weight and token read (6 where gradients are taken).
        waits: of the host for the device; -1 where that cannot be told.
        said: what else is to be said, or why there are no numbers.
    """

    size: str
    kind: str
    step: str
    seconds: float = float("nan")
    gigabytes: float = float("nan")
    share: float = float("nan")
    waits: int = -1
    said: str = ""


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer, made here."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{n}" for n in range(WORDS))]
    base = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def random_pair(size: str, kind: str, device: torch.device, dtype: torch.dtype) -> ModelPair:
    """A random pair of a size on a device; `kind` is "lora" or "full"."""
    config = AutoConfig.for_model("llama", **SIZES[size])
    with torch.device(device):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    base = base.eval().requires_grad_(False)
    inside = {
        f"{name}.weight" for name, m in base.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in name
    }
    every = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    aligned = copy_sharing(base, apart=inside if kind == "lora" else every)
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for name, p in aligned.named_parameters():
            if kind == "lora" and name in inside:
                ends = [torch.randn(n, 16, generator=generator, device=device, dtype=dtype) for n in p.shape]
                p.add_((ends[0] @ ends[1].T) * (0.02 / p.shape[1] ** 0.5))
            elif kind == "full":
                noise = torch.randn(p.shape, generator=generator, device=device, dtype=dtype)
                p.add_(noise * (0.05 * p.float().std(correction=0)).to(dtype))
    made, told = tokenizer(), str(dtype).removeprefix("torch.")
    return make_pair(
        LoadedModel(base, made, f"random {size}", f"{size} base", None, device, told),
        LoadedModel(aligned, made, f"random {size} {kind}", f"{size} {kind}", None, device, told),
    )


def suite(items: int, words: int) -> Suite:
    """Items with prompts of so many words and four choices of three."""
    rng = np.random.default_rng(0)

    def text(n: int) -> str:
        return " ".join(f"w{k}" for k in rng.integers(0, WORDS, n))

    made = [
        Item(f"i{n}", f"g{n % 8}", text(words), choices=tuple(f" {text(3)}" for _ in range(4)), gold=0)
        for n in range(items)
    ]
    return Suite("random", tuple(made))


@contextmanager
def waits_counted(device: torch.device) -> Iterator[list[int]]:
    """Counts the host's waits for a CUDA device into the list it yields; -1 elsewhere."""
    found = [-1]
    if device.type != "cuda":
        yield found
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield found
        found[0] = sum("synchroniz" in str(one.message) for one in seen)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of a large product of matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        settle(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def settle(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Report:
    """Times steps, one row each, within a budget of minutes."""

    def __init__(self, device: torch.device, rate: float, minutes: float) -> None:
        self.device, self.rate, self.end = device, rate, time.monotonic() + 60 * minutes
        self.rows: list[Measured] = []

    def step(self, pair: tuple[str, str], name: str, work: Callable[[], tuple[float, str]]) -> None:
        """Do a step and keep its row; `work` returns the operations that it needed and what else there is to say."""
        if time.monotonic() > self.end:
            self.rows.append(Measured(*pair, name, said="not begun: the time was used up"))
            return
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            with waits_counted(self.device) as waits:
                start = time.perf_counter()
                operations, said = work()
                settle(self.device)
                seconds = time.perf_counter() - start
        except (RuntimeError, ValueError, torch.OutOfMemoryError) as error:
            self.rows.append(Measured(*pair, name, said=f"failed: {str(error).splitlines()[0][:160]}"))
            return
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else float("nan")
        share = operations / seconds / self.rate if operations else float("nan")
        self.rows.append(Measured(*pair, name, seconds, peak, share, waits[0], said))


def measure(report: Report, size: str, kind: str, dtype: torch.dtype, items: int, words: int) -> None:
    """Every step of one pair."""
    holder: list[ModelPair] = []

    def make() -> tuple[float, str]:
        holder.append(random_pair(size, kind, report.device, dtype))
        return 0.0, f"{holder[0].base.parameters / 1e9:.3f}B weights"

    named = (size, kind)
    report.step(named, "make the pair", make)
    if not holder:
        return
    pair, asked = holder[0], suite(items, words)
    weights = pair.base.parameters
    rows = one_prompting(pair, asked, "plain").rows(asked)
    ids, mask, positions = (x.to(report.device) for x in pad(rows[: max(1, 4096 // len(rows[0].ids))], 0))
    tokens = ids.numel()

    def bare() -> tuple[float, str]:
        with torch.no_grad():
            for _ in range(2):
                pair.base.anatomy.backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return 2.0 * weights * 2 * tokens, f"{2 * tokens} tokens"

    def captured() -> tuple[float, str]:
        with tempfile.TemporaryDirectory() as folder:
            told = "bfloat16" if dtype == torch.bfloat16 else "float32"
            capture(pair, asked, to=Path(folder) / "acts.h5", positions="all", dtype=told).close()
        read = sum(row.start for row in rows) // 4
        return 2.0 * weights * 2 * read, f"{2 * read} tokens, both models, with the self-check"

    def scored() -> tuple[float, str]:
        found = score_suite(pair.base, asked)
        read = sum(row.start for row in rows) // 4 + sum(len(row.ids) - row.start for row in rows)
        return 2.0 * weights * read, f"{read} tokens, prompts shared: {found.shared}"

    def node() -> tuple[float, str]:
        some = [row for row in rows if row.item < max(1, items // 4)]
        with walk(pair) as path, Contraction(path.model, difference_of(pair), ("component",)) as contraction:
            shard = shard_of(path.model, some, batch_tokens=1024)
            model = path.to(0.5)
            settle(report.device)
            start = time.perf_counter()
            differentiate(model, shard, contraction)
            settle(report.device)
            alone = time.perf_counter() - start
        return 6.0 * weights * shard.n_tokens, f"{shard.n_tokens} tokens; the gradient alone {alone:.2f} s"

    def triples() -> tuple[float, str]:
        layer = [role.name for role in pair.base.anatomy.modules if role.layer == 0 and role.kind in ("attn", "mlp")]
        kept = {name: len(difference_of(pair).triples(name)[1]) for name in layer}
        times = pair.base.anatomy.n_layers
        return 0.0, f"one layer of {times}: " + ", ".join(f"{n.rpartition('.')[2]} {k}" for n, k in kept.items())

    def similar() -> tuple[float, str]:
        width = pair.base.anatomy.d_model
        x, y = (torch.randn(4 * width, width, device=report.device) for _ in range(2))
        torch.linalg.svdvals(x.T @ y)
        torch.linalg.eigh(x.T @ x)
        return 4.0 * 4 * width**3, f"one layer's cross-covariance values and one eigendecomposition, width {width}"

    def plan() -> tuple[float, str]:
        difference = difference_of(pair)
        names = [name for name in difference.units("component") if name.endswith((".attn", ".mlp"))]
        with mixture(pair, dict.fromkeys(names[: max(1, len(names) // 20)], 0.5)) as model:
            found = score_suite(model, asked, tokenizer=pair.base.tokenizer)
        return 0.0, f"{max(1, len(names) // 20)} of {len(names)} parts half undone, {len(found.items)} items scored"

    steps = {
        "bare forward": bare, "capture, every position": captured, "score": scored, "one path node": node,
        "triples": triples, "similarity": similar, "one frontier plan": plan,
    }  # fmt: skip
    for name, work in steps.items():
        report.step(named, name, work)


def page(facts: dict[str, Any], rows: list[Measured]) -> str:
    """The report as one page of Markdown."""
    lines = [
        "# Device report",
        "",
        *(f"* {name}: {value}" for name, value in facts.items()),
        "",
        "| pair | step | seconds | GB | share of the matrix rate | host waits | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [
            f"{row.seconds:.2f}",
            f"{row.gigabytes:.1f}",
            f"{row.share:.1%}",
            row.waits if row.waits >= 0 else "-",
        ]
        cells = ["-" if str(cell).startswith("nan") else str(cell) for cell in numbers]
        lines.append(f"| {row.size} {row.kind} | {row.step} | {' | '.join(cells)} | {row.said} |")
    return "\n".join(lines) + "\n"


def run(out: Path, *, tiny: bool = False, minutes: float = 8.0) -> list[Measured]:
    """Measure, write device.json and device.md to a folder, and return the rows."""
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 256)
    report = Report(device, rate, minutes - 0.5)
    for size in ("tiny",) if tiny or device.type == "cpu" else ("1B", "8B"):
        for kind in ("lora", "full"):
            measure(report, size, kind, dtype, items=4 if tiny else 64, words=8 if tiny else 60)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "measured matrix rate": f"{rate / 1e12:.2f} T operations a second in {str(dtype).removeprefix('torch.')}",
        "torch, transformers": f"{torch.__version__}, {transformers.__version__}",
        "TF32, deterministic algorithms": f"{torch.backends.cuda.matmul.allow_tf32}, {torch.are_deterministic_algorithms_enabled()}",
        "minutes": f"{(time.monotonic() - began) / 60:.1f}",
    }
    out.mkdir(parents=True, exist_ok=True)
    kept = [{k: None if v != v else v for k, v in asdict(row).items()} for row in report.rows]
    (out / "device.json").write_text(json.dumps({"facts": facts, "rows": kept}, indent=2) + "\n")
    (out / "device.md").write_text(page(facts, report.rows))
    return report.rows


def main() -> None:
    """Measure and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/device"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    run(given.out, tiny=given.tiny, minutes=given.minutes)
    print((given.out / "device.md").read_text())


if __name__ == "__main__":
    main()
