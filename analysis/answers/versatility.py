"""Loss of versatility: how many different things a model would say to one prompt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.items import Suite
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import length_class
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.answers import answers_file
from taxlens.analysis.answers.costs import Costs, costs_of
from taxlens.analysis.answers.kept.answer_store import Kept, kept_answers
from taxlens.analysis.scoring.logits import asked_logits
from taxlens.core.errors import ItemError, UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.shared_work import shared


def measure_versatility(
    pair: Any,
    suite: Suite,
    *,
    template: str = "chat",
    samples: int = 8,
    max_new_tokens: int = 32,
    temperature: float = 1.0,
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 4096,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> Costs:
    """Entropy at the first answer token, and variety among sampled continuations, for both models.

    ``entropy`` is of the next-token distribution where the answer begins, nats. Of ``samples``
    continuations of each prompt: ``distinct_1`` and ``distinct_2`` are different word n-grams over all
    of them (0..1, falls with length: read beside tokens), ``distinct_texts`` the share of different
    continuations, ``compression`` zlib's ratio of the continuations together (1 and above; higher is more
    repetitive; short texts compress badly).

    Args:
        pair: a loaded pair.
        suite: items; those without a prompt are passed over.
        template: ``chat`` or ``plain``.
        samples: continuations of each prompt, at least 2.
        max_new_tokens: where a continuation is cut.
        temperature: of the sampling, over the whole vocabulary.
        bootstrap: draws of the group bootstrap.
        seed: of sampling and bootstrap; both models sample with the same seed.
        batch_tokens: most padded tokens in one batch.
        folder: where samples are kept as they are made, so that a killed run goes on.
        progress: told of every batch.

    Returns:
        Costs, one row a measure.

    Raises:
        UsageError: fewer than two samples.
        ItemError: no item has a prompt.

    References:
        Li et al. 2016, arXiv 1510.03055 (distinct-n); Shaib et al. 2024, arXiv 2403.00553 (compression ratio);
        Kirk et al. 2024, arXiv 2310.06452 (what preference tuning does to diversity).
    """
    if samples < 2:
        raise UsageError(f"variety needs at least two samples of each prompt, got {samples}.")
    asked = [n for n, item in enumerate(suite.items) if item.prompt and item.prompt.strip()]
    if not asked:
        raise ItemError(explain("no item has a prompt to answer.", [("suite", suite.name)]))
    suite = suite.subset(asked)
    asked = {name: as_asked(pair, getattr(pair, name), template) for name in ("base", "aligned")}
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": (), "temperature": temperature, "seed": seed}

    def sample(name: str) -> tuple[np.ndarray, Kept]:
        model = getattr(pair, name)
        entropies = _entropies(model, asked[name].prompt_rows(suite), batch_tokens=batch_tokens)
        kept = kept_answers(
            model, suite.items, template=template, chat_template=asked[name].chat_template, samples=samples,
            path=answers_file(folder, suite.name, template, name, samples=True), batch_tokens=batch_tokens,
            progress=progress, **options,
        )  # fmt: skip
        return entropies, kept

    sides = []
    work = f"samples of {suite.name} ({suite.sha256[:12]}) {template} {samples} {options}"
    for name, (entropies, kept) in zip(asked, shared(work, ("base", "aligned"), sample), strict=True):
        kept.write(answers_file(folder, suite.name, template, name, samples=True))
        counts = [variety([one.text.strip() for one in said]) for said in kept.said]
        sides.append({"entropy": entropies} | {name: np.array([c[name] for c in counts]) for name in counts[0]})
    measures = [(name, sides[0][name], sides[1][name]) for name in sides[0]]
    return costs_of(suite, template, measures, bootstrap=bootstrap, seed=seed)


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Measures of variety among continuations of one prompt (see `measure_versatility`).

    Example:
        >>> variety(["a b", "a b"])["distinct_1"]
        0.5
    """
    words = [text.split() for text in texts]
    out: dict[str, float] = {}
    for n in (1, 2):
        grams = [tuple(line[i : i + n]) for line in words for i in range(len(line) - n + 1)]
        out[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    out["distinct_texts"] = len(set(texts)) / len(texts)
    joined = "\n".join(texts).encode("utf-8")
    out["compression"] = len(joined) / len(zlib.compress(joined, 9)) if joined else 0.0
    return out


def _entropies(model: Any, rows: Sequence[Row], *, batch_tokens: int) -> np.ndarray:
    """Entropy in nats of the next-token distribution at the end of each row, [rows]."""
    found = np.zeros(len(rows))
    for batch in pack(rows, batch_tokens=batch_tokens, length_class=length_class(model)):
        chosen = [rows[i] for i in batch]
        logits = asked_logits(model, *pad(chosen, 0), [(b, len(row.ids) - 1) for b, row in enumerate(chosen)])
        logp = torch.log_softmax(logits.double(), -1)
        found[batch] = -(logp.exp() * logp).sum(-1).cpu().numpy()
    return found
