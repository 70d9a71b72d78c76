"""Training of the dictionaries that a config asks for: inside a run, or alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary
from taxlens.analysis.features.training.corpus import Corpus
from taxlens.analysis.features.training.dictionary_training import Recipe
from taxlens.analysis.features.training.training_run import TrainingJob, train_dictionaries
from taxlens.core.progress import Progress
from taxlens.stages.features.features_section import DictionaryTraining

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.dictionaries.dictionary import Dictionary


def jobs_of(section: DictionaryTraining) -> list[TrainingJob]:
    """One job a layer and seed."""
    found = []
    for layer in section.layers:
        for seed in section.seeds:
            recipe = Recipe(
                role=section.role, width=section.width, k=section.k, batch=section.batch, passes=section.passes,
                rate=section.rate, seed=seed,
            )  # fmt: skip
            found.append(TrainingJob(f"{section.role}-{layer}-{seed}", Address("resid_post", layer), recipe))
    return found


def train_missing(
    pair: ModelPair, section: DictionaryTraining, *, root: Path, out: Path, resume: bool, progress: Progress
) -> dict[str, Dictionary]:
    """The dictionaries of a section by name; those that lie in the folder already are read from it.

    Args:
        pair: the two checkpoints.
        section: what to train.
        root: folder that the corpus' names start from.
        out: folder of the dictionaries.
        resume: take up an interrupted training.
        progress: told of reading and steps.
    """
    asked = jobs_of(section)
    missing = [one for one in asked if not (out / one.folder / "cfg.json").exists()]
    if missing:
        train_dictionaries(
            [pair.base, pair.aligned], Corpus(tuple(str(root / name) for name in section.corpus)), missing, out=out,
            tokens=section.tokens, context=section.context, autocast=section.autocast, resume=resume, progress=progress,
        )  # fmt: skip
    return {one.folder: read_dictionary(out / one.folder) for one in asked}
