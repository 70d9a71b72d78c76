"""Train the dictionaries of docs/features.md: SmolLM2-135M-Instruct and its refusal-tuned versions, three layers.

    python -m benchmarks.real.features_corpus
    python -m benchmarks.real.features_train            # takes up where it was interrupted

One reading of the corpus serves all: difference dictionaries of both pairs (two seeds each) and a base dictionary
at every layer. Written to .cache/smollm2/features/.
"""

from __future__ import annotations

import argparse

from benchmarks.real.features_corpus import OUT
from benchmarks.real.fetch import fetch
from benchmarks.real.refusal_lora import adapter
from taxlens.activations.hooks.sites import Address
from taxlens.activations.models.adapter import apply_adapter
from taxlens.activations.models.loading import load_model
from taxlens.analysis.features.training.corpus import Corpus
from taxlens.analysis.features.training.dictionary_training import Recipe
from taxlens.analysis.features.training.training_run import TrainingJob, train_dictionaries
from taxlens.cli.progress import terminal_progress

LAYERS = (6, 15, 22)
"""Early, middle, late of 30."""
PAIRS = ("extreme", "selective-0")
FOLDER = OUT.parent


def jobs(
    layers: tuple[int, ...], seeds: tuple[int, ...], pairs: tuple[str, ...], width: int, passes: int
) -> list[TrainingJob]:
    """Difference dictionaries by pair, layer and seed, and a base dictionary a layer."""
    found = []
    for layer in layers:
        address = Address("resid_post", layer)
        for number, pair in enumerate(pairs):
            for seed in seeds:
                recipe = Recipe(role="difference", width=width, seed=seed, passes=passes)
                found.append(TrainingJob(f"{pair}/difference-{layer}-{seed}", address, recipe, (0, number + 1)))
        recipe = Recipe(role="sae", width=width, seed=0, passes=passes)
        found.append(TrainingJob(f"base/sae-{layer}-0", address, recipe, (0, 0)))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="*", default=LAYERS)
    parser.add_argument("--pairs", nargs="*", default=PAIRS)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1))
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--out", default=str(FOLDER))
    given = parser.parse_args()
    base = load_model(str(fetch()), dtype="float32")
    models = [base, *(apply_adapter(base, adapter(name)) for name in given.pairs)]
    asked = jobs(tuple(given.layers), tuple(given.seeds), tuple(given.pairs), given.width, given.passes)
    train_dictionaries(
        models, Corpus((str(OUT),)), asked, out=given.out, tokens=given.tokens, autocast=True, resume=True,
        progress=terminal_progress(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
