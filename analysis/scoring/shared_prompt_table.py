"""A suite laid out once for both models of a pair: an item a line, its prompt once and its choices side by side.

What all choices of an item share is read once, the choices after it in branches that see the shared tokens and
themselves alone. A model that does not honour such a mask is given one line a choice instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from taxlens.analysis.scoring.logits import encode_for
from taxlens.analysis.scoring.shared_prompt import score_shared
from taxlens.core.progress import SILENT

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.items.tokens import Row
    from taxlens.activations.models.pair import ModelPair

PAD, SHARED = -2, -1
"""Branch of padding, and of what all choices share."""


@dataclass(frozen=True, slots=True)
class TokenLine:
    """What the models read of one item, or of one of its choices.

    Args:
        item: which item, counted among those with choices.
        ids, positions, branch: of each token.
        asked: (choice, place that predicts, token that is predicted).
        starts: choice to the place that predicts its first token.
        ends: choice to the place of its last token.
    """

    item: int
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    asked: tuple[tuple[int, int, int], ...]
    starts: dict[int, int]
    ends: dict[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceTable:
    """A suite's lines in batches.

    Args:
        suite: items with choices.
        lines: of each batch.
        ids, positions, branch: padded int64 [lines, places] of each batch.
        items: indices of the suite's items that have choices, in order.
        gold: index of each such item's right choice.
        shared: whether choices of an item share a line.
    """

    suite: Suite
    lines: list[list[TokenLine]]
    ids: list[torch.Tensor]
    positions: list[torch.Tensor]
    branch: list[torch.Tensor]
    items: np.ndarray
    gold: np.ndarray
    shared: bool

    @property
    def groups(self) -> np.ndarray:
        """Group of each item."""
        return np.array([self.suite.items[i].group for i in self.items], dtype=object)

    def real(self, batch: int) -> torch.Tensor:
        """Where a batch has a token that is not the first of its line, bool [lines, places]."""
        return (self.branch[batch] != PAD) & (self.positions[batch] > 0)

    def asked(self, batch: int) -> torch.Tensor:
        """Where a batch predicts a choice's token, bool [lines, places]."""
        wanted = torch.zeros(self.ids[batch].shape, dtype=torch.bool)
        for number, line in enumerate(self.lines[batch]):
            wanted[number, [place for _, place, _ in line.asked]] = True
        return wanted

    def by_item(self, batch: int) -> np.ndarray:
        """The item (counted among those with choices) of each line of a batch."""
        return np.array([line.item for line in self.lines[batch]])

    def mask(self, batch: int, dtype: torch.dtype) -> torch.Tensor:
        """What a batch's tokens see: int64 [lines, places] for whole rows, additive [lines, 1, places, places] else."""
        branch = self.branch[batch]
        if not self.shared:
            return (branch != PAD).long()
        query, key = branch[:, :, None], branch[:, None, :]
        place = torch.arange(branch.shape[1])
        visible = ((key == SHARED) | (key == query)) & (place[:, None] >= place[None, :])
        return torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype).masked_fill(visible, 0.0)[:, None]


def lay_out(
    pair: ModelPair, suite: Suite, *, template: str = "plain", batch_tokens: int = 2048, share: bool = True
) -> ChoiceTable:
    """A suite's items as both models will read them.

    Args:
        pair: the two checkpoints; both are asked, on the first item, whether they honour the mask.
        suite: items; those without choices are passed over.
        template: "plain" or "chat".
        batch_tokens: most padded tokens in a batch.
        share: read a prompt once for all choices, where both models can.
    """
    aligned = pair.aligned
    rows = encode_for(aligned, suite, template=template)
    items = sorted({row.item for row in rows})
    first = [row for row in rows if row.item == items[0]] if items else []
    share = share and bool(first) and all(
        score_shared(m.model, first, batch_tokens=batch_tokens, progress=SILENT) is not None
        for m in (pair.base, pair.aligned)
    )  # fmt: skip
    lines = []
    for number, item in enumerate(items):
        mine = [row for row in rows if row.item == item]
        lines += [_line(number, mine)] if share else [_line(number, [row]) for row in mine]
    batches = _batches(lines, batch_tokens)
    padded = [_padded(batch) for batch in batches]
    gold = np.array([suite.items[i].gold for i in items], dtype=np.int64)
    return ChoiceTable(suite, batches, *(list(one) for one in zip(*padded, strict=True)), np.array(items), gold, share)


def _line(item: int, rows: Sequence[Row]) -> TokenLine:
    shared = _common(rows) if len(rows) > 1 else len(rows[0].ids)
    ids, positions, branch = list(rows[0].ids[:shared]), list(range(shared)), [SHARED] * shared
    asked, starts, ends = [], {}, {}
    for row in rows:
        offset = len(ids) - shared  # of this row's own tokens, from where they would stand alone
        own = row.ids[shared:]
        places = [p if p < shared else p + offset for p in range(len(row.ids))]
        ids += own
        positions += range(shared, len(row.ids))
        branch += [row.choice] * len(own)
        asked += [(row.choice, places[p - 1], row.ids[p]) for p in range(row.start, len(row.ids))]
        starts[row.choice], ends[row.choice] = places[row.start - 1], places[-1]
    return TokenLine(item, tuple(ids), tuple(positions), tuple(branch), tuple(asked), starts, ends)


def _common(rows: Sequence[Row]) -> int:
    """Length of the tokens that all rows share and that stand before every row's choice."""
    limit = min(row.start for row in rows)
    first = rows[0].ids
    return next((p for p in range(limit) if any(row.ids[p] != first[p] for row in rows)), limit)


def _batches(lines: Sequence[TokenLine], batch_tokens: int) -> list[list[TokenLine]]:
    """Lines of like length together; all lines of an item lie in one batch."""
    by_item: dict[int, list[TokenLine]] = {}
    for line in lines:
        by_item.setdefault(line.item, []).append(line)
    batches: list[list[TokenLine]] = []
    width = 0
    for mine in sorted(by_item.values(), key=lambda several: -max(len(line.ids) for line in several)):
        if not batches or width * (len(batches[-1]) + len(mine)) > batch_tokens:
            batches.append([])
            width = max(len(line.ids) for line in mine)
        batches[-1] += mine
    return batches


def _padded(batch: Sequence[TokenLine]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (len(batch), max(len(line.ids) for line in batch))
    ids, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    branch = torch.full(shape, PAD, dtype=torch.int64)
    for number, line in enumerate(batch):
        size = len(line.ids)
        for whole, part in ((ids, line.ids), (positions, line.positions), (branch, line.branch)):
            whole[number, :size] = torch.tensor(part)
    return ids, positions, branch
