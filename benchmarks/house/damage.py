"""Damage of every kind of file that taxlens writes: each must be found by `verify` and by the read that touches the file.

Run: python -m benchmarks.house.damage --most 200
A run of every stage on the embedded pair, its paper kit, a checkpoint and an adapter restored from it and a store of its own are
made, and shown to verify and to read as they are. Then one file after another is damaged (one flipped bit, or cut short), verified,
read, and put back. What only people read (report, vector figures, paper kit) is read as `Run.checked` does, which every reader of
a run's files goes through; the log is read by `verify` alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.house.kills import CONFIGS, prepared
from taxlens.core.errors import CheckError, TaxlensError
from taxlens.demo import catalogue
from taxlens.runs.folder import Run

EVERY = (
    CONFIGS["computes"]
    .replace("[interpolation]", "[repair, interpolation]")
    .replace("features, frontier, edit]", "features, frontier, edit, figures, report]")
)
KINDS = (
    ("table", "tables/*.csv"), ("figure: numbers", "figures/*.csv"), ("figure: picture", "figures/*.png"),
    ("figure: vector", "figures/*.pdf"), ("figure: caption", "figures/*.txt"), ("report", "report.html"),
    ("manifest", "run.json"), ("log", "log.jsonl"), ("paper kit", "latex/*"), ("store: shard", "activations.shards/*.h5"),
    ("store: manifest", "activations.shards/manifest.json"), ("store: view", "activations.h5"),
    ("probes", "probes/*.safetensors"), ("probes: facts", "probes/*.json"), ("directions", "directions/*"),
    ("plans", "plans.json"), ("kept effects and plans", "frontier/*.npz"), ("editor: row", "editors/*.json"),
    ("editor: arrays", "editors/*.npz"), ("editor: edit", "editors/*.safetensors"), ("steering", "steering/*"),
    ("dictionary: weights", "dictionaries/*/*.safetensors"), ("dictionary: config", "dictionaries/*/cfg.json"),
    ("dictionary: training", "dictionaries/*/training.json"),
)  # fmt: skip
"""Kinds of files of a run, and where they lie."""


def read_of(kind: str, run: Path, name: str) -> Callable[[], object]:
    """The read that touches a file: the one of the stage or command that uses it."""
    path = run / name
    match kind:
        case "log":
            return partial(_verified_run, run)
        case "table":
            return lambda: Run.open(run).table(path.stem)
        case "manifest":
            return lambda: Run.open(run)
        case "store: shard" | "store: manifest":
            return lambda: _read_store(run / "activations.h5")
        case "probes" | "probes: facts":
            from taxlens.stages.probe.probe_files import load_probes

            return lambda: load_probes(path.with_suffix(".safetensors"))
        case "directions" if path.suffix in (".safetensors", ".json"):
            from taxlens.stages.probe.probe_files import load_directions

            return lambda: load_directions(path.with_suffix(".safetensors"))
        case "plans":
            from taxlens.analysis.frontier.plan_files import read_plan

            return lambda: read_plan(Run.open(run).checked("plans.json"), "path-20%")
        case "kept effects and plans":
            from taxlens.core.plain_files import read_arrays

            return lambda: read_arrays(path, title="kept", ours=True)
        case "editor: edit":
            from taxlens.core.plain_files import read_tensors

            return lambda: read_tensors(path, title="edit")
        case "editor: row":
            from taxlens.core.json_text import read_sealed

            return lambda: read_sealed(path, title="row", fix="")
        case "dictionary: weights" | "dictionary: config":
            from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary

            return lambda: read_dictionary(path.parent)
    return lambda: Run.open(run).checked(name)


def _read_store(path: Path) -> None:
    from taxlens.activations.store.store import Store

    with Store.open(path) as store:
        for site in store.sites:
            for layer in store.layers(site):
                for model in ("base", "aligned"):
                    store.read(site, layer, model=model)


def damaged(whole: bytes, dice: random.Random) -> bytes:
    """The bytes with one bit flipped, or cut short."""
    if len(whole) < 2 or dice.random() < 0.3:
        return whole[: dice.randrange(max(1, len(whole)))] if whole else b"x"
    at = dice.randrange(len(whole))
    return whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :]


def refused(work: Callable[[], object]) -> bool:
    """Whether a read or check refuses in taxlens's own words; any other error is a fault of its own and passes."""
    try:
        work()
    except TaxlensError:
        return True
    return False


def _verified_run(run: Path) -> None:
    if problems := Run.open(run).verify():
        raise CheckError("\n".join(problems))


def made(folder: Path) -> dict[str, list[tuple[Path, Callable[[], object], Callable[[], object]]]]:
    """Everything that is written, by kind: (file, what verifies it, what reads it)."""
    from taxlens.cli.app import run_app

    prepared(folder)
    (folder / "every.yaml").write_text(EVERY.replace("\n\n", "\n"), encoding="utf-8")
    run, kept = folder / "run", ["--accept-benefit-loss"]
    whole, low_rank, store = folder / "restored", folder / "adapter", folder / "own"
    plan = ["restore", str(run), "--plan"]
    for typed in (
        ["run", str(folder / "every.yaml"), "--out", str(run), "--quiet"],
        ["report", str(run), "--latex"],
        [*plan, "path-20%", "--out", str(whole), *kept],
        [*plan, "edit:repair", "--out", str(low_rank), "--as-adapter", *kept],
        ["capture", str(folder / "every.yaml"), "--shard", "1/2", "--out", str(store)],
    ):
        if code := run_app(typed):
            raise SystemExit(f"{' '.join(typed)} ended with {code}")
    files = defaultdict(list)
    verify = partial(_verified_run, run)
    seen = set()
    for kind, pattern in KINDS:
        for path in sorted(run.glob(pattern)):
            seen.add(path)
            files[kind].append((path, verify, read_of(kind, run, path.relative_to(run).as_posix())))
    left = [p for p in run.rglob("*") if p.is_file() and p not in seen and p.name not in (".lock",)]
    for path in left:
        files[f"other: {path.suffix}"].append(
            (path, verify, partial(Run.open(run).checked, str(path.relative_to(run))))
        )
    _add_restored(files, whole, low_rank, folder)
    return files


def _add_restored(
    files: dict[str, list[tuple[Path, Callable[[], object], Callable[[], object]]]],
    whole: Path,
    low_rank: Path,
    folder: Path,
) -> None:
    from taxlens.activations.models.adapter_files import read_adapter
    from taxlens.activations.models.loading import load_model
    from taxlens.analysis.frontier.restore import verify_restored

    for path in sorted(p for p in whole.iterdir() if p.suffix != ".md"):
        files["restored checkpoint"].append((path, partial(verify_restored, whole), partial(load_model, whole)))
    aligned = load_model(catalogue.resolve("demo:planted")).model
    for path in sorted(p for p in low_rank.iterdir() if p.suffix != ".md"):
        read = partial(read_adapter, low_rank, aligned, "aligned")
        files["adapter"].append((path, partial(verify_restored, low_rank), read))
    own = folder / "own" / "activations.h5"
    for path in sorted((own.parent / "activations.shards").iterdir()):
        files["store of its own"].append((path, partial(_verified_store, own), partial(_read_store, own)))


def _verified_store(path: Path) -> None:
    from taxlens.activations.store.store import verify

    verify(path)


def main() -> None:
    """Damage, verify, read, put back; print the counts of every kind, and exit with 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=200, help="damages in all")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    dice, tried, missed = random.Random(chosen.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as place:
        files = made(Path(place))
        kinds = list(files)
        for kind in kinds:
            for path, verify, read in files[kind][:3]:
                if refused(verify) or refused(read):
                    raise SystemExit(f"{kind} {path.name} is refused as it was written")
        by_verify, by_read = Counter[str](), Counter[str]()
        for number in range(chosen.most):
            kind = kinds[number % len(kinds)]
            path, verify, read = dice.choice(files[kind])
            bytes_before = path.read_bytes()
            path.write_bytes(damaged(bytes_before, dice))
            tried[kind] += 1
            seen, read_too = refused(verify), refused(read)
            path.write_bytes(bytes_before)
            by_verify[kind] += seen
            by_read[kind] += read_too
            if not (seen and read_too):
                missed += 1
                print(f"missed: {kind} {path.name}, verify {seen}, read {read_too}", flush=True)
    for kind in kinds:
        print(
            f"{kind:<24} {len(files[kind]):>4} files, {tried[kind]:>3} damaged, {by_verify[kind]:>3} by verify, {by_read[kind]:>3} by the read"
        )
    print(f"{chosen.most - missed} of {chosen.most} found by both")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
