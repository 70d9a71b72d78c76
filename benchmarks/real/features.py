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
from benchmarks.real.refusal_lora import ADAPTERS
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.models.pair import load_pair
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary
from taxlens.analysis.features.feature_controls import FeatureControls
from taxlens.analysis.features.feature_report import FeatureReport, report_features
from taxlens.cli.progress import terminal_progress
from taxlens.core.artifacts import write_table

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


def seeds_agree(controls: list[FeatureControls]) -> dict[str, float]:
    """Cosine of what two seeds' leading latents give back: of the mean vector, and of all items' vectors together."""
    first, second = (one.vector for one in controls[:2])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))

    return {"mean_vector": cosine(first.mean(0), second.mean(0)), "all_items": cosine(first, second)}


def summary(found: FeatureReport, suite: str) -> dict[str, object]:
    """What the docs print: closure, gate, prediction against measured, controls, rivals."""
    said: dict[str, object] = {"closure": json.loads(found.tables["features_closure"].to_json(orient="records"))}
    for (name, _), controls in found.controls.items():
        for metric in controls.taxes:
            shares = {
                f"{one.what}-{one.draw} {one.side}": [round(v, 3) for v in (s.value, s.low, s.high)]
                for one in controls.given for s in [controls.share(one, metric)]
            }  # fmt: skip
            slopes = {
                f"{what} {side}": [round(v, 3) for v in (s.value, s.low, s.high)]
                for what in ("leading", "all") for side in ("restored", "removed")
                for s in [controls.slope(metric, what, side)]
            }  # fmt: skip
            ahead = {
                f"{control} {side}": [round(v, 3) for v in (s.value, s.low, s.high)]
                for control in ("matched_mass", "matched_rate") for side in ("restored", "removed")
                for s in [controls.ahead(metric, side, control)]
            }  # fmt: skip
            said[f"{name} {metric}"] = {"returned": shares, "slope": slopes, "ahead": ahead}
    same = [one for (name, _), one in found.controls.items() if name.startswith("difference")]
    if len(same) > 1:
        said["seeds"] = seeds_agree(same)
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
    pair = load_pair(fetch(), adapter=ADAPTERS / given.pair)
    suite = suite_of(given.suite, given.items)
    began = time.monotonic()
    found = report_features(
        pair, suite, dictionaries_of(given.folder, given.pair, given.layer, given.seeds, given.base),
        template=TEMPLATES[given.suite], draws=given.draws, max_gradients=given.max_gradients,
        progress=terminal_progress(),
    )  # fmt: skip
    out = FOLDER / "results" / f"{given.pair}-{given.suite}-{given.layer}"
    for name, frame in found.tables.items():
        write_table(frame, out / f"{name}.csv")
    said = summary(found, given.suite) | {"seconds": round(time.monotonic() - began), "items": len(suite)}
    (out / "summary.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(found)
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
