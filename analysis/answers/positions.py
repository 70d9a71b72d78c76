"""Where in the answer the two models part: KL and rank shift by answer position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import length_class
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.answers.answer_tables import DIVERGENCE
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.scoring.logits import asked_logits
from taxlens.core.errors import ItemError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import sum_intervals

MARGINAL_RANK = 3
MEASURES = ("kl", "unshifted", "marginal", "shifted")


@dataclass(frozen=True, slots=True, repr=False)
class Divergence(Result):
    """How far aligned is from base at each position of aligned's own answers.

    ``kl`` is KL(aligned || base) of the next-token distributions, nats. A position is unshifted
    where aligned's first choice is base's, marginal where it is base's second or third, else shifted.

    Attributes:
        frame: one row a position (blank: all together) and measure.
    """

    figure: ClassVar[str] = "divergence"

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row a position and measure; position is blank for all positions together."""
        return self.frame.copy()

    def __repr__(self) -> str:
        rows = self.frame[self.frame["position"].isna()].set_index("measure")
        kl, shifted = rows.loc["kl"], rows.loc["shifted"]
        return (
            f"Divergence: {kl['suite']} ({kl['template']}) KL {kl['value']:.3f} nats [{kl['low']:.3f}, {kl['high']:.3f}], "
            f"shifted {shifted['value']:.1%} of positions, n={kl['n_items']} items in {kl['n_groups']} groups"
        )


def answer_divergence(
    pair: Any,
    answers: Answers,
    *,
    positions: int = 32,
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 2048,
    progress: Progress = SILENT,
) -> Divergence:
    """KL(aligned || base) and rank shift along the aligned model's answers.

    Both models read prompt and answer as aligned is asked and said it. Later positions are
    read on the items whose answers are that long: their number stands beside each.

    Args:
        pair: the pair that answered.
        answers: what it said.
        positions: answer tokens looked at, from the first.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.
        batch_tokens: most padded tokens in one batch.
        progress: told of every batch.

    Returns:
        Divergence.

    Raises:
        ItemError: aligned answered nothing.

    References:
        Qi et al. 2024, arXiv 2406.05946 (alignment a few tokens deep); Lin et al. 2024, arXiv 2312.01552 (URIAL).
    """
    rows = _rows(pair, answers, positions)
    if not rows:
        raise ItemError(explain("the aligned model gives no answer to any prompt.", [("suite", answers.suite.name)]))
    found = np.full((len(rows), positions, 2), np.nan)
    with progress.task("divergence", total=len(rows), unit="answers") as task:
        for batch in pack(rows, batch_tokens=batch_tokens, length_class=length_class(pair.aligned)):
            chosen = [rows[i] for i in batch]
            asked = [(b, p) for b, row in enumerate(chosen) for p in range(row.start - 1, len(row.ids) - 1)]
            base, aligned = (asked_logits(m, *pad(chosen, 0), asked) for m in (pair.base, pair.aligned))
            kl, rank = compare(base, aligned)
            for (b, p), value, place in zip(asked, kl, rank):
                found[batch[b], p + 1 - chosen[b].start] = value, place
            task.advance(len(batch))
    groups = answers.suite.groups[[row.item for row in rows]]
    return Divergence(_frame(answers, found, groups, bootstrap=bootstrap, seed=seed))


def compare(base: torch.Tensor, aligned: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """KL(aligned || base) in nats and base's rank of aligned's first choice, by row of logits [rows, vocabulary].

    Returns:
        float64 [rows], and int [rows] counted from 1.
    """
    one, two = torch.log_softmax(base.double(), -1), torch.log_softmax(aligned.double(), -1)
    kl = (two.exp() * (two - one)).sum(-1)
    best = aligned.argmax(-1, keepdim=True)
    rank = (base > base.gather(-1, best)).sum(-1) + 1
    return kl.clamp(min=0).cpu().numpy(), rank.cpu().numpy()


def _rows(pair: Any, answers: Answers, positions: int) -> list[Row]:
    tokenizer, rows = pair.aligned.tokenizer, []
    asked = as_asked(pair, pair.aligned, answers.template)
    for n, (item, answer) in enumerate(zip(answers.suite.items, answers.aligned)):
        context = asked.prompt_ids(item)
        said = f" {answer}" if answer and asked.template == "plain" else answer
        said = tokenizer(said, add_special_tokens=False).input_ids
        if said and context:
            ids = (*context, *said[:positions])
            rows.append(Row(item=n, choice=0, ids=tuple(ids), start=len(context), kind="choice"))
    return rows


def _frame(answers: Answers, found: np.ndarray, groups: np.ndarray, *, bootstrap: int, seed: int) -> pd.DataFrame:
    kl, rank = found[..., 0], found[..., 1]
    shares = (rank == 1, (rank > 1) & (rank <= MARGINAL_RANK), rank > MARGINAL_RANK)
    measures = np.stack([kl, *(np.where(np.isnan(rank), np.nan, share) for share in shares)], axis=-1)
    parts: list[tuple[int | None, np.ndarray]] = [(None, np.nanmean(measures, axis=1))]
    parts += [(p, measures[:, p]) for p in range(found.shape[1]) if not np.isnan(rank[:, p]).all()]
    rows = []
    for position, values in parts:
        present = ~np.isnan(values[:, 0])
        kept, names = values[present], groups[present]
        low, high = sum_intervals(kept, names, draws=bootstrap, seed=seed)
        for number, measure in enumerate(MEASURES):
            rows.append(
                (
                    answers.suite.name,
                    answers.template,
                    position,
                    measure,
                    float(kept[:, number].mean()),
                    float(low[number]),
                    float(high[number]),
                    len(kept),
                    len(set(names)),
                )
            )
    frame = DIVERGENCE.frame(rows)
    frame["position"] = frame["position"].astype("Int64")
    return frame
