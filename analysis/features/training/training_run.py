"""Dictionaries trained on a pair and a corpus, several at once from one reading, interrupted and taken up again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.dictionary_files import write_dictionary
from taxlens.analysis.features.training.activation_stream import ActivationStream
from taxlens.analysis.features.training.corpus import Corpus, held_out
from taxlens.analysis.features.training.dictionary_training import Recipe, Trainer, batches
from taxlens.core.artifacts import write_json
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.plain_files import read_plain, write_plain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel

KEPT = 100
"""Steps between two savings of an unfinished training."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One dictionary to train: where, how, on which of the models that are read.

    Args:
        folder: its name under the output folder.
        address: site and layer.
        recipe: how.
        models: places of base and aligned among the models that are read.
    """

    folder: str
    address: Address
    recipe: Recipe
    models: tuple[int, int] = (0, 1)


def train_dictionaries(
    models: Sequence[LoadedModel],
    corpus: Corpus,
    jobs: Sequence[TrainingJob],
    *,
    out: str | Path,
    tokens: int = 250_000,
    context: int = 128,
    chunk_tokens: int = 1 << 18,
    batch_tokens: int = 4096,
    autocast: bool = False,
    resume: bool = False,
    record: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = SILENT,
) -> dict[str, Dictionary]:
    """Train dictionaries on what the models hold along a corpus, and write each to its folder.

    The corpus is read once for all of them. One window in 20 is kept from training and measured on.

    Args:
        models: base, aligned (or base and several aligned; a job says which two it reads).
        corpus: the texts.
        jobs: what to train.
        out: folder of the dictionaries.
        tokens: most tokens of the corpus that are used.
        context: tokens of a window.
        chunk_tokens: tokens held in memory at a time; each is drawn `passes` times before the next chunk is read.
        batch_tokens: most padded tokens of a forward pass.
        autocast: multiply in bfloat16, reading and training.
        resume: go on from what an interrupted training left in the folder.
        record: further facts to keep beside each dictionary; an interrupted training must have the same.
        progress: told of reading and of every step.

    Returns:
        Dictionaries by folder name.

    Raises:
        UsageError: no job, or a corpus that is too small.
        CheckError: the folder holds a training of another recipe.
    """
    if not jobs:
        raise UsageError(explain("no dictionary to train.", (), "name a site and a layer."))
    rows = list(
        _limited(corpus.windows(models[0].tokenizer, context=context, chat_template=models[-1].chat_template), tokens)
    )
    kept = [row for row in rows if not held_out(row)]
    total = sum(len(row.ids) for row in kept)
    smallest = max(job.recipe.batch for job in jobs) * 4
    if total < smallest:
        fix = "a larger corpus, or a smaller batch."
        raise UsageError(explain("the corpus is too small.", [("tokens", total), ("needs", smallest)], fix))
    addresses = sorted({job.address for job in jobs}, key=lambda a: (a.layer, a.site))
    stream = ActivationStream(
        models, addresses, lambda: iter(kept), chunk_tokens=chunk_tokens, batch_tokens=batch_tokens, autocast=autocast
    )
    d = models[0].anatomy.d_model
    work = [
        _Work(job, d, total, Path(out) / job.folder, autocast=autocast, resume=resume, record=record) for job in jobs
    ]
    with progress.task("train dictionaries", total=total, unit="tokens") as task:
        stream.told = lambda seen: task.advance(seen, note="reading")
        first = min(one.chunk for one in work)
        for number, chunk in enumerate(stream.chunks(start=first), first):
            for one in work:
                one.learn(chunk[one.job.address], number, lambda note: task.advance(0, note=note))
    test = [row for row in rows if held_out(row)]
    seen = ActivationStream(models, addresses, lambda: iter(test), batch_tokens=batch_tokens).read(test) if test else {}
    facts = {
        "tokens": total, "outlying": stream.outlying, "context": context, "corpus": list(corpus.files),
        "models": [model.source for model in models], "sha256": [model.sha256 for model in models],
    }  # fmt: skip
    return {one.job.folder: one.finish(seen.get(one.job.address), facts, models) for one in work}


class _Work:
    """One job under way: its trainer, and the files that let it go on."""

    def __init__(
        self, job: TrainingJob, d: int, tokens: int, folder: Path, *, autocast: bool, resume: bool,
        record: Mapping[str, Any],
    ) -> None:  # fmt: skip
        steps = max(1, tokens // job.recipe.batch * job.recipe.passes)
        self.job, self.folder = job, folder
        self.trainer = Trainer(job.recipe, d, steps, autocast=autocast)
        self.chunk = self.within = 0
        self.told: list[dict[str, float]] = []
        self.seconds = 0.0
        self.facts = {"recipe": asdict(job.recipe), "address": str(job.address), "tokens": tokens, **record}
        if resume and self._file.exists():
            self._load()

    @property
    def _file(self) -> Path:
        return self.folder / "training.npz"

    def learn(self, chunk: torch.Tensor, number: int, note: Callable[[str], None]) -> None:
        """Train on one chunk, [tokens, models, d]; chunks done before an interruption are passed over."""
        if number < self.chunk:
            return
        begun = time.perf_counter()
        pair = chunk[:, list(self.job.models)]
        for batch in batches(pair, self.job.recipe, number=number, start=self.within):
            told = self.trainer.train(batch)
            self.within += 1
            if self.trainer.step % 20 == 0:
                self.told.append(told | {"step": self.trainer.step})
                note(f"{self.job.folder} step {self.trainer.step} explains {told['explained']:.0%}")
            if self.trainer.step % KEPT == 0:
                self._save()
        self.chunk, self.within = number + 1, 0
        self.seconds += time.perf_counter() - begun
        self._save()

    def finish(self, test: torch.Tensor | None, facts: dict[str, Any], models: Sequence[LoadedModel]) -> Dictionary:
        """Measure on held-out windows, write the dictionary, drop the files of the unfinished training."""
        first, second = (models[place] for place in (self.job.models[0], self.job.models[-1]))
        found = self.trainer.dictionary(
            site=self.job.address.site, layer=self.job.address.layer, source=str(self.folder), model=first.source
        )
        record = self.facts | facts | {"seconds": round(self.seconds, 1), "aligned": second.source}
        if test is not None and len(test):
            record["held_out"] = _measured(found, self.trainer.inputs(test[:, list(self.job.models)]))
        write_dictionary(found, self.folder, record=record)
        write_json({"steps": self.told} | record, self.folder / "training.json")
        self._file.unlink(missing_ok=True)
        return found

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.facts | {"chunk": self.chunk, "within": self.within, "told": self.told, "seconds": self.seconds}
        state = {name: value.cpu().numpy() for name, value in self.trainer.state().items()}
        write_plain(self._file, {"record": record, "state": state})  # one file: both of one step

    def _load(self) -> None:
        kept = read_plain(self._file)
        record = kept["record"]
        other = {key: record.get(key) for key in self.facts if _plain(record.get(key)) != _plain(self.facts[key])}
        if other:
            rows = [("folder", self.folder), *((key, f"{other[key]}, asked {self.facts[key]}") for key in other)]
            fix = f"another folder, or remove {self._file} to train from the start."
            raise CheckError(explain("the folder holds a training of another recipe.", rows, fix))
        self.trainer.load({name: torch.from_numpy(np.array(value)) for name, value in kept["state"].items()})
        self.chunk, self.within = int(record["chunk"]), int(record["within"])
        self.told, self.seconds = record["told"], float(record["seconds"])


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _measured(found: Dictionary, inputs: torch.Tensor) -> dict[str, float]:
    """Variance explained, latents on a token and latents that never fired, on held-out inputs [tokens, models, d]."""
    x = inputs if found.role == "crosscoder" else inputs[:, 0]
    left = total = on = 0.0
    fired = torch.zeros(found.width, dtype=torch.bool)
    mean = inputs.mean(0) if found.role != "difference" else torch.zeros_like(inputs[0])
    for piece, raw in zip(x.split(2048), inputs.split(2048)):
        codes = found.encode(piece)
        out = found.decode(codes, piece).reshape(raw.shape)
        left += float((raw - out).square().sum())
        total += float((raw - mean).square().sum())
        on += float((codes > 0).sum())
        fired |= (codes > 0).any(0)
    return {
        "explained": 1 - left / max(total, 1e-12), "active": on / len(x), "never": float((~fired).float().mean()),
        "tokens": float(len(x)),
    }  # fmt: skip


def _limited(rows: Any, tokens: int) -> Any:
    used = 0
    for row in rows:
        used += len(row.ids)
        if used > tokens:
            return
        yield row
