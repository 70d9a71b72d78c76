"""An item's choices side by side on one line, their common prompt read once.

The tokens that all choices of an item share are laid down once, the choices after them
side by side; a mask lets each choice see the shared tokens and itself alone, and positions
continue from the end of the shared part. The numbers are those of separate rows, up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import Piece, packed, pad
from taxlens.activations.items.out_of_memory import give_back_memory, in_halves, memory_ran_out
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import length_class
from taxlens.analysis.scoring.logits import LOGIT_BUDGET, asked_logits, target_log_probabilities
from taxlens.core.progress import Progress

logger = logging.getLogger(__name__)

AGREEMENT = 1e-3
"""Largest difference in nats between shared and separate scores of the first item, float32 and float64."""

HALF_AGREEMENT = 0.25
"""The same in float16 and bfloat16, whose rounding is that coarse."""

PAD, SHARED = -2, -1
"""Branch of padding, and of what all choices share."""


@dataclass(frozen=True, slots=True)
class TokenLine:
    """What a model reads of some choices of one item.

    Args:
        item: which item.
        members: index of each choice's row among those that were laid out.
        ids, positions, branch: of each token; the branch is the member's number, or `SHARED`.
        asked: (member's number, place that predicts, token that is predicted).
        starts: choice to the place that predicts its first token.
        ends: choice to the place of its last token, where that is read.
    """

    item: int
    members: tuple[int, ...]
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    asked: tuple[tuple[int, int, int], ...]
    starts: dict[int, int]
    ends: dict[int, int]

    @property
    def choices(self) -> tuple[int, ...]:
        """The choice that each member is."""
        return tuple(self.starts)


def laid_out(rows: Sequence[Row], members: Sequence[int], *, item: int, whole: bool = False) -> TokenLine:
    """Lay the choices of one item side by side.

    Args:
        rows: choice rows.
        members: indices of the rows to lay out, all of one item.
        item: number to give the item.
        whole: read every token, and share none of a choice's own; else a choice's last token is only predicted,
            and first tokens that all choices have in common are shared too.
    """
    mine = [rows[i] for i in members]
    shared = _common(mine, most=min(row.start if whole else len(row.ids) - 1 for row in mine))
    ids, positions, branch = list(mine[0].ids[:shared]), list(range(shared)), [SHARED] * shared
    asked, starts, ends = [], {}, {}
    for number, row in enumerate(mine):
        offset = len(ids) - shared  # of this row's own tokens, from where they would stand alone
        read = row.ids if whole else row.ids[:-1]
        places = [p if p < shared else p + offset for p in range(len(read))]
        ids += read[shared:]
        positions += range(shared, len(read))
        branch += [number] * (len(read) - shared)
        asked += [(number, places[p - 1], row.ids[p]) for p in range(row.start, len(row.ids))]
        starts[row.choice] = places[row.start - 1]
        if whole:
            ends[row.choice] = places[-1]
    return TokenLine(item, tuple(members), tuple(ids), tuple(positions), tuple(branch), tuple(asked), starts, ends)


def padded_lines(lines: Sequence[TokenLine]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (ids, positions, branch) of a batch of lines, each int64 [lines, longest]."""
    shape = (len(lines), max(len(line.ids) for line in lines))
    ids, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    branch = torch.full(shape, PAD, dtype=torch.int64)
    for number, line in enumerate(lines):
        size = len(line.ids)
        for whole, part in ((ids, line.ids), (positions, line.positions), (branch, line.branch)):
            whole[number, :size] = torch.tensor(part)
    return ids, positions, branch


def branch_mask(branch: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask [batch, 1, seq, seq]: causal, shared tokens and one's own branch."""
    query, key = branch[:, :, None], branch[:, None, :]
    place = torch.arange(branch.shape[1])
    visible = ((key == SHARED) | (key == query)) & (place[:, None] >= place[None, :])
    return torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype).masked_fill(visible, 0.0)[:, None]


def asked_places(lines: Sequence[TokenLine]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return the distinct (line, place) pairs that predict something, and for every asked token its pair and itself."""
    places: dict[tuple[int, int], int] = {}
    at, targets = [], []
    for number, line in enumerate(lines):
        for _, place, token in line.asked:
            at.append(places.setdefault((number, place), len(places)))
            targets.append(token)
    return list(places), at, targets


def score_shared(
    model: Any, rows: Sequence[Row], *, batch_tokens: int, part: tuple[int, int] = (0, 1), progress: Progress
) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-probability and greediness of each row's choice, prompts shared within an item.

    Args:
        model: a Hugging Face causal language model.
        rows: choice rows; rows of one item are neighbours.
        batch_tokens: most padded tokens in one batch.
        part: (k, n): every n-th batch from the k-th; rows of others keep 0 and True.
        progress: told of every batch.

    Returns:
        (logp float64 [rows], greedy bool [rows]), or None where the model does not honour the
        mask (checked on the first item) or attends in a window shorter than a row: rows must
        then be scored separately.
    """
    if not can_share(model, rows):
        return None
    of = length_class(model)
    lines = [laid_out(rows, mine, item=rows[mine[0]].item) for mine in one_class_items(rows, model)]
    pieces = [
        Piece(len(line.ids), asked=len(line.asked), kind=of(len(rows[line.members[0]].ids) - 1)) for line in lines
    ]
    most = max(1, LOGIT_BUDGET // model.config.get_text_config().vocab_size)
    logp = np.zeros(len(rows))
    greedy = np.ones(len(rows), dtype=bool)
    with progress.task("score", total=len(rows), unit="rows") as task:
        for batch in packed(pieces, batch_tokens=batch_tokens, most_asked=most)[part[0] :: part[1]]:
            for owner, values, first in in_halves(partial(_run, model), [lines[i] for i in batch], what="scoring"):
                np.add.at(logp, owner, values)
                np.logical_and.at(greedy, owner, first)
            task.advance(sum(len(lines[i].members) for i in batch))
    return logp, greedy


def can_share(model: Any, rows: Sequence[Row]) -> bool:
    """Whether a model reads choices side by side as it reads them alone: asked of the item with most to mix up.

    Never where it attends in a window or chunk shorter than a row: the mask would let tokens see further than it does.
    """
    config = model.config.get_text_config()
    windows = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size")]
    if any(window and max(len(row.ids) for row in rows) > window for window in windows):
        return False
    lines = [laid_out(rows, mine, item=rows[mine[0]].item) for mine in one_class_items(rows, model)]
    try:
        return _agrees(model, rows, max(lines, key=lambda line: sum(b != SHARED for b in line.branch)))
    except (ValueError, RuntimeError, TypeError) as error:  # a model that takes no mask of pairs of positions
        if not memory_ran_out(error):
            return False
    give_back_memory()  # after the except block, whose error holds the failed pass's tensors
    logger.warning("memory ran out where choices were tried side by side: each is read with its own prompt")
    return False


def one_class_items(rows: Sequence[Row], model: Any, *, whole: bool = False) -> list[list[int]]:
    """Indices of the rows of each item, in order; an item's rows apart where a model turns them by other angles."""
    of = length_class(model)
    items: dict[tuple[int, int], list[int]] = {}
    for index, row in enumerate(rows):
        items.setdefault((row.item, of(len(row.ids) - (not whole))), []).append(index)
    return list(items.values())


def _common(rows: Sequence[Row], *, most: int) -> int:
    """Length of the tokens that all rows begin with, at most `most`."""
    first = rows[0].ids
    return next((p for p in range(most) if any(row.ids[p] != first[p] for row in rows)), most)


def _run(model: Any, lines: Sequence[TokenLine]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, log-probability, is first choice) of every asked token of a batch."""
    ids, positions, branch = padded_lines(lines)
    places, at, targets = asked_places(lines)
    logits = asked_logits(model, ids, branch_mask(branch, model.dtype), positions, places)
    values, first = target_log_probabilities(logits, at, targets)
    rows = [line.members[number] for line in lines for number, _, _ in line.asked]
    return np.array(rows), values.numpy(), first.numpy()


def _agrees(model: Any, rows: Sequence[Row], line: TokenLine) -> bool:
    owner, values, _ = _run(model, [line])
    shared = np.bincount(np.searchsorted(line.members, owner), values, len(line.members))
    chosen = [rows[i] for i in line.members]
    asked = [(b, p) for b, row in enumerate(chosen) for p in range(row.start - 1, len(row.ids) - 1)]
    targets = [token for row in chosen for token in row.ids[row.start :]]
    logits = asked_logits(model, *pad(chosen, 0), asked)
    values, _ = target_log_probabilities(logits, range(len(asked)), targets)
    separate = np.bincount([b for b, _ in asked], values.numpy(), len(chosen))
    tolerance = AGREEMENT if model.dtype in (torch.float32, torch.float64) else HALF_AGREEMENT
    return bool(np.abs(shared - separate).max() <= tolerance)
