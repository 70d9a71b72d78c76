"""Fuzzing of everything that reads a stranger's file.

Run: python -m benchmarks.house.fuzz --minutes 10 items tables yaml
Each target takes bytes and a folder to work in, and lets out only errors that are not taxlens's own: those are findings. A
finding is written to .cache/fuzz/TARGET-HASH; one that is mended belongs into tests/fuzz/corpus/TARGET. An input that takes
longer than 5 s of the processor, or more than 1 GB, is a finding too.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from taxlens.core.errors import TaxlensError

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
LONGEST = 5.0
"""Seconds of the processor that an input may take."""
MOST = 1e9
"""Bytes that an input may take."""
PIECES = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80", b"1e999", b"NaN", b"-", b"9" * 400, b"9" * 5000,
    b"[" * 300,
    b'{"a":' * 300, b"null", b"true", b"&a", b"*a", b"!!python/object:x", b"<<: *a\n", b"{% for i in range(9) %}", b"{{", b"}}", b"../", b"\x1b[31m",
)  # fmt: skip
"""What is put into files beside flipped bytes: what parsers trip over."""


def damaged(data: bytes, seed: int) -> bytes:
    """Return the bytes with one to four changes: flips, cuts, copies, and pieces that parsers trip over."""
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        stop = min(len(data), at + dice.choice((1, 2, 8, 64)))
        match dice.randrange(5):
            case 0:
                data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[stop:]
            case 2:
                data = data[:stop] + data[at:]
            case 3:
                data = data[:at] + dice.choice(PIECES) + data[at:]
            case _:
                data = data[:at]
    return data


def _put(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def items(data: bytes, folder: Path) -> None:
    """JSON lines of items."""
    from taxlens.activations.items.items import read_suite

    _let(lambda: read_suite(_put(data, folder, "s.jsonl")).sha256)


def tables(data: bytes, folder: Path) -> None:
    """A CSV of items."""
    from taxlens.activations.items.items import read_suite

    _let(lambda: read_suite(_put(data, folder, "s.csv")).sha256)


def yaml(data: bytes, folder: Path) -> None:
    """A config."""
    from taxlens.config.schema import load_config

    _let(lambda: load_config(_put(data, folder, "c.yaml")))


def logs(data: bytes, folder: Path) -> None:
    """A per-sample log of lm-eval."""
    from taxlens.analysis.logs.import_eval import import_eval

    base = _put(data, folder, "samples_task_2025-01-01T00-00-00.jsonl")
    _let(lambda: import_eval(base, base, out=folder / "out.jsonl"))


def plans(data: bytes, folder: Path) -> None:
    """A run's plans."""
    from taxlens.analysis.frontier.plan_files import read_plan

    _let(lambda: read_plan(_put(data, folder, "plans.json"), "recommended"))


def manifest(data: bytes, folder: Path) -> None:
    """A run.json."""
    from taxlens.runs.folder import Run

    _put(data, folder, "run.json")
    _let(lambda: Run.open(folder).verify())


def store(data: bytes, folder: Path) -> None:
    """A store's manifest, whose seal is made to fit: what it says is what is tried."""
    import json

    from taxlens.activations.store.manifest import seal
    from taxlens.activations.store.store import Store, inspect

    target = folder / "s.shards"
    if not target.exists():
        shutil.copytree(ROOT / "tests/archives/format-1/float32.shards", target)
    try:
        found = json.loads(data)
        data = json.dumps(found | {"sha256": seal(found)}).encode() if isinstance(found, dict) else data
    except (ValueError, RecursionError, UnicodeError):
        pass
    (target / "manifest.json").write_bytes(data)

    def read() -> None:
        inspect(target)
        with Store.open(target) as opened:
            opened.read(opened.sites[0], opened.layers(opened.sites[0])[0])

    _let(read)


def checkpoint(data: bytes, folder: Path) -> None:
    """A checkpoint's config.json beside good weights: looked at, not loaded."""
    from taxlens.activations.models.contents import look
    from taxlens.demo import catalogue

    target = folder / "model"
    if not target.exists():
        shutil.copytree(catalogue.resolve("demo:base"), target)
    (target / "config.json").write_bytes(data)
    _let(lambda: look(target))


def adapter(data: bytes, folder: Path) -> None:
    """An adapter's config."""
    from taxlens.activations.models.adapter_files import _config

    _put(data, folder, "adapter_config.json")
    _let(lambda: _config(folder))


def template(data: bytes, folder: Path) -> None:
    """A chat template."""
    from taxlens.activations.items.chat import render_chat

    text = data.decode("utf-8", "replace")
    _let(lambda: render_chat(_tokenizer(), "hello there", chat_template=text or "x"))


def gguf(data: bytes, folder: Path) -> None:
    """The header of a GGUF checkpoint."""
    from taxlens.activations.models.loading import load_model

    _put(data, folder, "m.gguf")
    _let(lambda: load_model(folder, gguf="m.gguf"))


def dictionary(data: bytes, folder: Path) -> None:
    """The config of a dictionary beside good weights."""
    from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary, read_record

    target = folder / "sae"
    if not target.exists():
        import torch

        from taxlens.core.plain_files import write_tensors

        target.mkdir()
        shapes = {"W_enc": (6, 4), "W_dec": (4, 6), "b_enc": (4,), "b_dec": (6,), "threshold": (4,)}
        write_tensors(target / "sae_weights.safetensors", {name: torch.ones(shape) for name, shape in shapes.items()})
    (target / "cfg.json").write_bytes(data)
    _let(lambda: read_dictionary(target))
    _let(lambda: read_record(target))


def corpus(data: bytes, folder: Path) -> None:
    """JSON lines of texts and chats to train dictionaries on."""
    from taxlens.analysis.features.training.corpus import Corpus

    path = _put(data, folder, "t.jsonl")
    _let(lambda: list(Corpus((str(path),)).documents()))


def labelled(data: bytes, folder: Path) -> None:
    """Labelled answers, as JSON lines and as a table."""
    from taxlens.analysis.answers.labelled import read_labelled

    for name in ("l.jsonl", "l.csv"):
        _let(lambda name=name: read_labelled(_put(data, folder, name)))


def arrays(data: bytes, folder: Path) -> None:
    """An archive of arrays, as kept effects, plans and results are."""
    from taxlens.core.plain_files import read_arrays, read_plain

    path = _put(data, folder, "a.npz")
    _let(lambda: read_arrays(path, title="arrays"))
    _let(lambda: read_plain(path))


def tensors(data: bytes, folder: Path) -> None:
    """A file of tensors, as probes, directions, edits, adapters and dictionaries are."""
    from taxlens.core.plain_files import read_tensors

    path = _put(data, folder, "t.safetensors")
    _let(lambda: read_tensors(path, title="tensors"))


def _tokenizer() -> object:
    global _KEPT
    if _KEPT is None:
        from transformers import AutoTokenizer

        from taxlens.demo import catalogue

        _KEPT = AutoTokenizer.from_pretrained(catalogue.resolve("demo:base"))
    return _KEPT


_KEPT: object = None


def _let(read: Callable[[], object]) -> None:
    try:
        read()
    except TaxlensError as error:
        if not str(error):
            raise ValueError("an error without words") from error


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "items": items, "tables": tables, "yaml": yaml, "logs": logs, "plans": plans, "manifest": manifest, "store": store,
    "checkpoint": checkpoint, "adapter": adapter, "template": template, "gguf": gguf,
    "dictionary": dictionary, "corpus": corpus, "labelled": labelled, "arrays": arrays, "tensors": tensors,
}  # fmt: skip


def complaint(target: Callable[[bytes, Path], None], data: bytes, folder: Path) -> str:
    """What is wrong with how a target takes an input: an error that is not taxlens's own, over 5 s, over 1 GB; "" if nothing."""
    started, held = time.process_time(), _peak()
    signal.setitimer(signal.ITIMER_PROF, 4 * LONGEST)
    try:
        target(data, folder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if (spent := time.process_time() - started) > LONGEST:
        return f"took {spent:.0f} s"
    return f"took {(_peak() - held) / 1e9:.1f} GB" if _peak() - held > MOST else ""


def _peak() -> int:
    """Bytes that this process held at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _stop(number: int, frame: object) -> None:
    raise TimeoutError(f"no end after {4 * LONGEST:.0f} s")


def fuzzed(name: str, seconds: float, seed: int, folder: Path) -> tuple[int, list[Path]]:
    """Fuzz one target for some seconds; returns how many inputs were tried and the files of what was found."""
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    dice, tried, found = random.Random(seed), 0, []
    for data in seeds:
        TARGETS[name](data, folder)  # what is imported at the first call is no slow input
    until = time.process_time() + seconds
    while time.process_time() < until:
        data = damaged(dice.choice(seeds), dice.randrange(2**32))
        wrong = complaint(TARGETS[name], data, folder)
        tried += 1
        if wrong:
            kept = ROOT / ".cache" / "fuzz" / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            found.append(kept)
            print(f"{kept}\n{wrong}", flush=True)
    return tried, found


def main() -> None:
    """Fuzz the targets in turn, and exit with 1 if anything was found."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of the processor, a target")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    signal.signal(signal.SIGPROF, _stop)
    total = 0
    for name in chosen.targets:
        with tempfile.TemporaryDirectory() as folder:
            tried, found = fuzzed(name, 60 * chosen.minutes, chosen.seed, Path(folder))
        total += len(found)
        print(f"{name}: {tried} inputs, {len(found)} findings, {_peak() / 1e9:.2f} GB at most", flush=True)
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
