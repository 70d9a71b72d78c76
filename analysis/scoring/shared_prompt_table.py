"""A suite laid out once for both models of a pair: an item a line, its prompt once and its choices side by side.

A model that does not honour the mask of such a line is given one line a choice instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from taxlens.activations.items.batches import Piece, packed
from taxlens.activations.items.gold import check_one_right
from taxlens.activations.models.lengths import length_class
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.scoring.shared_prompt import (
    PAD,
    TokenLine,
    branch_mask,
    can_share,
    laid_out,
    one_class_items,
    padded_lines,
)

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair


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
        return branch_mask(branch, dtype) if self.shared else (branch != PAD).long()


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
    check_one_right(suite)
    rows = one_prompting(pair, suite, template).rows(suite)
    items = sorted({row.item for row in rows})
    place = {item: number for number, item in enumerate(items)}
    network = pair.aligned.model
    share = share and bool(rows) and all(can_share(m.model, rows) for m in (pair.base, pair.aligned))
    several = one_class_items(rows, network, whole=True) if share else [[index] for index in range(len(rows))]
    lines = [laid_out(rows, mine, item=place[rows[mine[0]].item], whole=True) for mine in several]
    of = length_class(network)
    together: dict[tuple[int, int], list[TokenLine]] = {}
    for line in lines:
        kind = of(max(len(rows[i].ids) for i in line.members))
        together.setdefault((line.item, kind), []).append(line)
    pieces = [Piece(max(len(line.ids) for line in mine), len(mine), kind=kind) for (_, kind), mine in together.items()]
    held = list(together.values())
    batches = [[line for i in batch for line in held[i]] for batch in packed(pieces, batch_tokens=batch_tokens)]
    padded = [padded_lines(batch) for batch in batches]
    gold = np.array([suite.items[i].gold for i in items], dtype=np.int64)
    return ChoiceTable(suite, batches, *(list(one) for one in zip(*padded, strict=True)), np.array(items), gold, share)
