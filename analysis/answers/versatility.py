"""Loss of versatility: how many different things a model would say to one prompt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.items import Suite
from taxlens.activations.items.tokens import Row, pad_token
from taxlens.activations.models.lengths import length_class, network
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.costs import Costs, costs_of
from taxlens.analysis.scoring.logits import asked_logits
from taxlens.core.errors import ItemError, UsageError, explain
from taxlens.core.progress import SILENT, Progress


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
    sides = []
    for model in (pair.base, pair.aligned):
        rows = as_asked(pair, model, template).prompt_rows(suite)
        values = {"entropy": _entropies(model, rows, batch_tokens=batch_tokens)}
        texts = sample_continuations(
            model, rows, samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            batch_tokens=batch_tokens, progress=progress,
        )  # fmt: skip
        counts = [variety(said) for said in texts]
        sides.append(values | {name: np.array([c[name] for c in counts]) for name in counts[0]})
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


def sample_continuations(
    model: Any,
    rows: Sequence[Row],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_tokens: int,
    progress: Progress = SILENT,
) -> list[list[str]]:
    """``samples`` random continuations of each prompt row, the same for the same seed and batches.

    Args:
        model: a loaded model of a pair.
        rows: prompt rows.
        samples: continuations a row.
        max_new_tokens: where a continuation is cut.
        temperature: of the softmax over the whole vocabulary.
        seed: of the sampling; the global generator is left as it was.
        batch_tokens: most padded tokens in one batch, continuations included.
        progress: told of every batch.

    Returns:
        [rows][samples] texts without special tokens.
    """
    hf, tokenizer = network(model), model.tokenizer
    filler = pad_token(tokenizer)
    texts: list[list[str]] = [[] for _ in rows]
    longest = max(len(row.ids) for row in rows)
    budget = batch_tokens * longest // (samples * (longest + max_new_tokens))
    places = {p.device for p in hf.parameters() if p.is_cuda}  # not every device of the machine: only the model's
    with progress.task("sample", total=len(rows), unit="prompts") as task, torch.random.fork_rng(devices=places):
        torch.manual_seed(seed)
        for batch in pack(rows, batch_tokens=budget):
            ids, mask, _ = pad([rows[i] for i in batch], filler, side="left")
            with torch.no_grad():
                out = hf.generate(
                    input_ids=ids.to(hf.device),
                    attention_mask=mask.to(hf.device),
                    do_sample=True,
                    temperature=temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=samples,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=filler,
                )
            said = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for place, index in enumerate(batch):
                texts[index] = [text.strip() for text in said[place * samples : (place + 1) * samples]]
            task.advance(len(batch))
    return texts


def _entropies(model: Any, rows: Sequence[Row], *, batch_tokens: int) -> np.ndarray:
    """Entropy in nats of the next-token distribution at the end of each row, [rows]."""
    found = np.zeros(len(rows))
    for batch in pack(rows, batch_tokens=batch_tokens, length_class=length_class(model)):
        chosen = [rows[i] for i in batch]
        logits = asked_logits(model, *pad(chosen, 0), [(b, len(row.ids) - 1) for b, row in enumerate(chosen)])
        logp = torch.log_softmax(logits.double(), -1)
        found[batch] = -(logp.exp() * logp).sum(-1).cpu().numpy()
    return found
