"""Score an item's choices together, reading their common prompt once.

The tokens that all choices of an item share are laid down once, the choices after them
side by side; a mask lets each choice see the shared tokens and itself alone, and positions
continue from the end of the shared part. The last token of a choice is only predicted and
never read. The numbers are those of separate rows, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.tokens import Row, pad
from taxlens.analysis.scoring.logits import LOGIT_BUDGET, asked_logits, target_log_probabilities
from taxlens.core.progress import Progress

AGREEMENT = 1e-3
"""Largest difference in nats between shared and separate scores of the first item, float32 and float64."""

HALF_AGREEMENT = 0.25
"""The same in float16 and bfloat16, whose rounding is that coarse."""


@dataclass(frozen=True, slots=True)
class _Tree:
    """One item's rows laid side by side: tokens, positions, branch (-1: shared), and what is asked."""

    rows: tuple[int, ...]
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    asked: tuple[tuple[int, int, int], ...]  # (row, place that predicts, target token)


def score_shared(
    model: Any, rows: Sequence[Row], *, batch_tokens: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-probability and greediness of each row's choice, prompts shared within an item.

    Args:
        model: a Hugging Face causal language model.
        rows: choice rows; rows of one item are neighbours.
        batch_tokens: most padded tokens in one batch.
        progress: told of every batch.

    Returns:
        (logp float64 [rows], greedy bool [rows]), or None where the model does not honour the
        mask (checked on the first item) or attends in a window shorter than a row: rows must
        then be scored separately.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window and max(len(row.ids) for row in rows) > window:
        return None  # the mask would let tokens see further than the model does
    trees = _trees(rows)
    if not _agrees(model, rows, trees[0]):
        return None
    logp = np.zeros(len(rows))
    greedy = np.ones(len(rows), dtype=bool)
    with progress.task("score", total=len(rows), unit="rows") as task:
        for batch in _batches(trees, batch_tokens, model.config.get_text_config().vocab_size):
            owner, values, first = _run(model, batch)
            np.add.at(logp, owner, values)
            np.logical_and.at(greedy, owner, first)
            task.advance(sum(len(tree.rows) for tree in batch))
    return logp, greedy


def _trees(rows: Sequence[Row]) -> list[_Tree]:
    trees, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end].item != rows[start].item:
            trees.append(_tree(rows, range(start, end)))
            start = end
    return trees


def _tree(rows: Sequence[Row], members: range) -> _Tree:
    shared = _common([rows[i] for i in members])
    first = rows[members[0]]
    ids, positions, branch = list(first.ids[:shared]), list(range(shared)), [-1] * shared
    asked = []
    for number, index in enumerate(members):
        row, offset = rows[index], len(ids)
        read = row.ids[shared:-1]
        ids += read
        positions += range(shared, shared + len(read))
        branch += [number] * len(read)
        for position in range(row.start, len(row.ids)):
            place = position - 1 if position <= shared else offset + position - 1 - shared
            asked.append((index, place, row.ids[position]))
    return _Tree(tuple(members), tuple(ids), tuple(positions), tuple(branch), tuple(asked))


def _common(rows: Sequence[Row]) -> int:
    """Length of the tokens that all rows share and that stand before the last token of each."""
    limit = min(len(row.ids) for row in rows) - 1
    first = rows[0].ids
    for position in range(limit):
        if any(row.ids[position] != first[position] for row in rows):
            return position
    return limit


def _batches(trees: Sequence[_Tree], batch_tokens: int, vocabulary: int) -> list[list[_Tree]]:
    most = max(1, LOGIT_BUDGET // vocabulary)
    batches: list[list[_Tree]] = []
    width = used = 0
    for tree in sorted(trees, key=lambda tree: -len(tree.ids)):
        full = not batches or width * (len(batches[-1]) + 1) > batch_tokens
        if full or used + len(tree.asked) > most:
            batches.append([])
            width, used = len(tree.ids), 0
        batches[-1].append(tree)
        used += len(tree.asked)
    return batches


def _run(model: Any, batch: Sequence[_Tree]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, log-probability, is first choice) of every asked token of a batch."""
    width = max(len(tree.ids) for tree in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.int64)
    positions = torch.zeros((len(batch), width), dtype=torch.int64)
    branch = torch.full((len(batch), width), -2, dtype=torch.int64)
    for number, tree in enumerate(batch):
        size = len(tree.ids)
        ids[number, :size] = torch.tensor(tree.ids)
        positions[number, :size] = torch.tensor(tree.positions)
        branch[number, :size] = torch.tensor(tree.branch)
    places: dict[tuple[int, int], int] = {}
    rows, at, targets = [], [], []
    for number, tree in enumerate(batch):
        for row, place, token in tree.asked:
            at.append(places.setdefault((number, place), len(places)))
            rows.append(row)
            targets.append(token)
    logits = asked_logits(model, ids, _mask(branch, model.dtype), positions, list(places))
    values, first = target_log_probabilities(logits, at, targets)
    return np.array(rows), values.numpy(), first.numpy()


def _mask(branch: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask [batch, 1, seq, seq]: causal, shared tokens and one's own branch."""
    query, key = branch[:, :, None], branch[:, None, :]
    place = torch.arange(branch.shape[1])
    visible = ((key == -1) | (key == query)) & (place[:, None] >= place[None, :])
    mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype)
    return mask.masked_fill(visible, 0.0)[:, None]


def _agrees(model: Any, rows: Sequence[Row], tree: _Tree) -> bool:
    owner, values, _ = _run(model, [tree])
    shared = np.bincount(owner, values, len(tree.rows))
    chosen = [rows[i] for i in tree.rows]
    asked = [(b, p) for b, row in enumerate(chosen) for p in range(row.start - 1, len(row.ids) - 1)]
    targets = [token for row in chosen for token in row.ids[row.start :]]
    logits = asked_logits(model, *pad(chosen, 0), asked)
    values, _ = target_log_probabilities(logits, range(len(asked)), targets)
    separate = np.bincount([b for b, _ in asked], values.numpy(), len(chosen))
    tolerance = AGREEMENT if model.dtype in (torch.float32, torch.float64) else HALF_AGREEMENT
    return bool(np.abs(shared - separate).max() <= tolerance)
