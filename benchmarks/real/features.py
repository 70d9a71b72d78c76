"""The figures of docs/features.md: SmolLM2-135M-Instruct and its refusal-tuned versions, accounted for in features.

    python -m benchmarks.real.features_corpus
    python -m benchmarks.real.features_train
    python -m benchmarks.real.features extreme cities 15 --seeds 0 1 --base
    python -m benchmarks.real.features selective-0 overrefusal 15

Cities are those of the countries that the corpus leaves out; prompts of over-refusal are in no corpus. Tables go to
.cache/smollm2/features/results/PAIR-SUITE-LAYER/, and a summary to the terminal.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.real.features_corpus import OUT, countries
from benchmarks.real.fetch import fetch
from benchmarks.real.refusal_lora import ADAPTERS, adapter
from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.models.pair import ModelPair, load_pair
from taxlens.analysis.features.account_run import account_dictionaries
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary
from taxlens.analysis.features.feature_controls import FeatureControls, control_features
from taxlens.analysis.features.give_back import suite_streams
from taxlens.analysis.features.latent_names import names_frame
from taxlens.cli.progress import terminal_progress
from taxlens.core.artifacts import write_table
from taxlens.core.stats.intervals import Interval

FOLDER = OUT.parent
TEMPLATES = {"cities": "plain", "agreement": "plain", "overrefusal": "chat"}


def suite_of(name: str, items: int) -> Suite:
    """So many items of a suite of configs/smollm2, evenly spread; cities of the countries that no corpus names."""
    whole = read_suite(ADAPTERS / f"{name}.jsonl")
    places = np.arange(len(whole))
    if name == "cities":
        kept = set(countries(corpus=False))
        places = np.array([n for n in places if whole.items[n].group in kept])
    chosen = places[np.linspace(0, len(places) - 1, min(items, len(places))).round().astype(int)]
    return whole.subset(sorted({int(n) for n in chosen}))


def dictionaries_of(folder: Path, pair: str, layer: int, seeds: list[int], base: bool) -> dict[str, Dictionary]:
    """The trained dictionaries of a pair and layer, by name."""
    found = {f"difference-{layer}-{seed}": folder / pair / f"difference-{layer}-{seed}" for seed in seeds}
    if base:
        found[f"base-{layer}"] = folder / "base" / f"sae-{layer}-0"
    return {name: read_dictionary(path) for name, path in found.items()}


def seeds_agree(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Cosine of what two seeds' leading latents give back [items, d]: of the mean vectors, and item by item."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))

    return {"mean_vector": cosine(first.mean(0), second.mean(0)), "all_items": cosine(first, second)}


def rounded(interval: Interval) -> list[float]:
    """Value and ends of an interval."""
    return [round(v, 3) for v in (interval.value, interval.low, interval.high)]


def judged(controls: FeatureControls) -> dict[str, object]:
    """What was returned, predicted over measured, and the lead over controls, by metric."""
    said: dict[str, object] = {}
    sides = list(dict.fromkeys(one.side for one in controls.given))
    for metric in controls.taxes:
        returned = {f"{o.what}-{o.draw} {o.side}": rounded(controls.share(o, metric)) for o in controls.given}
        slopes = {f"{w} {s}": rounded(controls.slope(metric, w, s)) for w in ("leading", "all") for s in sides}
        ahead = {
            f"{c} {s}": rounded(controls.ahead(metric, s, c)) for c in ("matched_mass", "matched_rate") for s in sides
        }
        said[metric] = {"returned": returned, "slope": slopes, "ahead": ahead, "best": controls.best(metric)}
    return said


def measured(pair: ModelPair, suite: Suite, given: argparse.Namespace) -> dict[str, object]:
    """The account in each dictionary, the first dictionary's controls, and how far seeds agree."""
    template, progress = TEMPLATES[given.suite], terminal_progress()
    dictionaries = dictionaries_of(given.folder, given.pair, given.layer, given.seeds, given.base)
    began = time.monotonic()
    accounts = account_dictionaries(
        pair, suite, dictionaries, template=template, max_gradients=given.max_gradients, progress=progress
    )
    out = FOLDER / "results" / f"{given.pair}-{given.suite}-{given.layer}"
    out.mkdir(parents=True, exist_ok=True)
    said: dict[str, object] = {"items": len(suite), "walk_seconds": round(time.monotonic() - began)}
    vectors = {}
    for number, (name, account) in enumerate(accounts.items()):
        print(account, flush=True)
        closure = account.closure_frame()
        write_table(closure, out / f"{name}-closure.csv")
        write_table(account.to_frame(), out / f"{name}-features.csv")
        address = Address(account.dictionary.site, account.dictionary.layer)
        streams = suite_streams(pair, suite, address, template=template)
        shown = {"name": name, "template": template}
        write_table(
            names_frame(streams, account.dictionary, account.chosen(suite.name)[:20], **shown),
            out / f"{name}-names.csv",
        )
        said[name] = {"closure": json.loads(closure.to_json(orient="records"))}
        if number == 0:
            controls = control_features(pair, suite, account, draws=given.draws)
            write_table(controls.to_frame(), out / f"{name}-controls.csv")
            said[name] |= judged(controls)  # type: ignore[operator]
        else:
            controls = control_features(pair, suite, account, draws=0, sides=())
        vectors[name] = controls.vector
        (out / "summary.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    same = [vector for name, vector in vectors.items() if name.startswith("difference")]
    if len(same) > 1:
        said["seeds"] = seeds_agree(*same[:2])
    said["seconds"] = round(time.monotonic() - began)
    (out / "summary.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return said


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", choices=("extreme", "selective-0"))
    parser.add_argument("suite", choices=tuple(TEMPLATES))
    parser.add_argument("layer", type=int)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--base", action="store_true", help="the base dictionary too")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--max-gradients", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    pair = load_pair(fetch(), adapter=adapter(given.pair))
    print(json.dumps(measured(pair, suite_of(given.suite, given.items), given), indent=1))


if __name__ == "__main__":
    main()
