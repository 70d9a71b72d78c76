"""Training of the dictionaries that a config asks for: inside a run, or alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary, read_record
from taxlens.analysis.features.training.corpus import Corpus
from taxlens.analysis.features.training.dictionary_training import Recipe
from taxlens.analysis.features.training.training_run import TrainingJob, train_dictionaries
from taxlens.core.artifacts import finished, sha256_file, sha256_json
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
    """The dictionaries of a section by name; those that lie in the folder already, made just so, are read from it.

    Args:
        pair: the two checkpoints.
        section: what to train.
        root: folder that the corpus' names start from.
        out: folder of the dictionaries.
        resume: take up an interrupted training.
        progress: told of reading and steps.
    """
    asked = jobs_of(section)
    corpus, models = Corpus(tuple(str(root / name) for name in section.corpus)), [pair.base, pair.aligned]
    wanted = {"context": section.context, "autocast": section.autocast, "asked_tokens": section.tokens}
    wanted |= {
        "corpus_sha256": [_text_sha256(Path(name)) for name in corpus.files],
        "sha256": [one.sha256 for one in models],
    }
    missing = [one for one in asked if not _is_made(out / one.folder, one, wanted)]
    if missing:
        train_dictionaries(
            models, corpus, missing, out=out, tokens=section.tokens, context=section.context,
            autocast=section.autocast, resume=resume, progress=progress, record=wanted,
        )  # fmt: skip
    for path in (path for one in asked for path in sorted((out / one.folder).iterdir())):
        finished(path)  # a pass that takes a dictionary over keeps its files
    return {one.folder: read_dictionary(out / one.folder) for one in asked}


def _text_sha256(path: Path) -> str:
    """The hash of a corpus file, or of a folder's files by name."""
    if path.is_file():
        return sha256_file(path)
    return sha256_json({one.name: sha256_file(one) for one in sorted(path.rglob("*")) if one.is_file()})


def _is_made(folder: Path, job: TrainingJob, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder holds the dictionary of this recipe, corpus and pair."""
    record = read_record(folder)
    asked = {"recipe": asdict(job.recipe), "address": str(job.address), **wanted}
    return all(record.get(key) == json.loads(json.dumps(value)) for key, value in asked.items())
