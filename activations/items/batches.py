"""Batches under a budget of padded tokens, and rows padded to tensors: the one home of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from taxlens.core.errors import one_of

if TYPE_CHECKING:
    from taxlens.activations.items.tokens import Row


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into one batch or another as a whole.

    Args:
        width: tokens of its longest line.
        lines: how many lines it has.
        asked: positions whose logits it wants.
        kind: pieces of different kinds never share a batch (see `models.lengths.length_class`).
    """

    width: int
    lines: int = 1
    asked: int = 0
    kind: int = 0


def packed(pieces: Sequence[Piece], *, batch_tokens: int, most_asked: int | None = None) -> list[list[int]]:
    """Return batches of indices into `pieces`, longest first, each within the budgets.

    Args:
        pieces: what to batch.
        batch_tokens: most tokens in one padded batch; a larger piece makes a batch of its own.
        most_asked: most asked positions in one batch; None: no bound.

    Returns:
        Every index once. Ties keep their order, so that the same pieces always give the same batches.

    Example:
        >>> packed([Piece(2), Piece(5), Piece(4)], batch_tokens=10)
        [[1, 2], [0]]
    """
    batches: list[list[int]] = []
    width = lines = asked = 0
    kind = None
    for index in sorted(range(len(pieces)), key=lambda i: (pieces[i].kind, -pieces[i].width)):
        piece = pieces[index]
        full = not batches or piece.kind != kind or width * (lines + piece.lines) > batch_tokens
        if full or (most_asked is not None and asked + piece.asked > most_asked):
            batches.append([])
            width, lines, asked, kind = piece.width, 0, 0, piece.kind
        batches[-1].append(index)
        lines += piece.lines
        asked += piece.asked
    return batches


def pack(
    rows: Sequence[Row], *, batch_tokens: int, length_class: Callable[[int], int] | None = None
) -> list[list[int]]:
    """Return batches of row indices, longest rows first, each within a budget of padded tokens.

    Args:
        rows: what to batch; every token of a row is read.
        batch_tokens: most tokens in one padded batch; a single longer row still makes a batch of its own.
        length_class: class of a row's length; rows of different classes never share a batch.
    """
    kinds = [0 if length_class is None else length_class(len(row.ids)) for row in rows]
    pieces = [Piece(len(row.ids), kind=kind) for row, kind in zip(rows, kinds, strict=True)]
    return packed(pieces, batch_tokens=batch_tokens)


def pad(rows: Sequence[Row], pad_id: int, *, side: str = "right") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (input_ids, attention_mask, position_ids), each int64 [rows, longest].

    `position_ids` count real tokens only, whatever the side of the padding: padding never shifts a position.

    Args:
        rows: one batch.
        pad_id: id written where there is no token.
        side: "right" or "left".
    """
    one_of(side, ("right", "left"), what="padding side")
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), int(pad_id), dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        at = slice(0, len(row.ids)) if side == "right" else slice(width - len(row.ids), width)
        ids[number, at] = torch.tensor(row.ids, dtype=torch.int64)
        mask[number, at] = 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)
