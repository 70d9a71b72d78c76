"""Activations of one model or a pair on a corpus, chunk by chunk, never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from taxlens.activations.hooks.hooks import StopForward, reading, run_backbone
from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.tokens import Row, pad_token
from taxlens.core.errors import CheckError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel

Tensor = torch.Tensor
Chunk = dict[Address, Tensor]
"""[tokens, models, d] at each address, tokens in the order of the rows."""

OUTLYING = 10.0
"""A position whose norm is so many times the median is no ordinary token: an attention sink, kept out and counted."""


@dataclass(slots=True, eq=False)
class ActivationStream:
    """What models hold at some addresses on rows of tokens, a chunk of tokens at a time, in a fixed order.

    Args:
        models: the base, or base and aligned (or base and several aligned ones).
        addresses: where they are read.
        rows: makes the token rows anew each time it is called.
        chunk_tokens: tokens of one chunk, held in memory in half precision where the numbers allow it.
        batch_tokens: most padded tokens of one forward pass.
        autocast: multiply in bfloat16 while reading: faster, and enough to train on.
        told: called with the tokens of each forward pass.
    """

    models: Sequence[LoadedModel]
    addresses: Sequence[Address]
    rows: Callable[[], Iterator[Row]]
    chunk_tokens: int = 1 << 18
    batch_tokens: int = 4096
    autocast: bool = False
    told: Callable[[int], None] = lambda tokens: None
    kept: int = 0
    outlying: int = 0

    def chunks(self, *, start: int = 0) -> Iterator[Chunk]:
        """Chunk after chunk, from number `start` on; those before it are passed over without a forward pass.

        Raises:
            CheckError: an activation is not finite.
        """
        for number, rows in enumerate(self._cut()):
            if number >= start:
                yield self.read(rows)

    def read(self, rows: Sequence[Row]) -> Chunk:
        """Activations of rows, with outlying positions left out."""
        held: dict[Address, list[Tensor]] = {address: [] for address in self.addresses}
        for batch in pack(rows, batch_tokens=self.batch_tokens):
            chosen = [rows[i] for i in batch]
            ids, mask, positions = pad(chosen, pad_token(self.models[0].tokenizer))
            seen = [self._forward(model, ids, mask, positions) for model in self.models]
            for address in self.addresses:
                held[address].append(self._ordinary(torch.stack([one[address] for one in seen], dim=1), address))
            self.told(int(mask.sum()))
        return {address: torch.cat(parts) for address, parts in held.items()}

    def _cut(self) -> Iterator[list[Row]]:
        piece: list[Row] = []
        used = 0
        for row in self.rows():
            piece.append(row)
            used += len(row.ids)
            if used >= self.chunk_tokens:
                yield piece
                piece, used = [], 0
        if piece:
            yield piece

    def _forward(self, model: LoadedModel, ids: Tensor, mask: Tensor, positions: Tensor) -> dict[Address, Tensor]:
        found: dict[Address, Tensor] = {}
        real = mask.bool()

        def keep(address: Address, x: Tensor) -> None:
            found[address] = x.detach().flatten(2)[real.to(x.device)].float().cpu()
            if len(found) == len(self.addresses):
                raise StopForward

        fast = torch.autocast(model.device.type, dtype=torch.bfloat16) if self.autocast else nullcontext()
        with reading(model.model, model.anatomy, self.addresses, keep), fast:
            run_backbone(model.anatomy, *(x.to(model.device) for x in (ids, mask, positions)))
        return found

    def _ordinary(self, x: Tensor, address: Address) -> Tensor:
        """Rows without the outlying ones, in half precision where no number is lost."""
        if not bool(torch.isfinite(x).all()):
            rows = [("address", address), ("values", int((~torch.isfinite(x)).sum()))]
            raise CheckError(explain("activations are not finite.", rows, "dtype: float32"))
        fine = ordinary(x)
        self.kept += int(fine.sum())
        self.outlying += int((~fine).sum())
        x = x[fine]
        return x.half() if float(x.abs().max()) < 3e4 else x


def ordinary(x: Tensor) -> Tensor:
    """Whether each token's norm is within `OUTLYING` times the median, in every model: bool [tokens].

    Args:
        x: [tokens, models, d] or [tokens, d].
    """
    norms = x.norm(dim=-1).reshape(len(x), -1)
    return (norms <= OUTLYING * norms.median(dim=0).values.clamp_min(1e-12)).all(dim=1)
