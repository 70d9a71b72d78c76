"""From a forward pass to a shard's buffers: only the asked rows of the asked sites leave the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taxlens.activations.capture.request import Request
from taxlens.activations.hooks.hooks import StopForward, reading, run_backbone
from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.tokens import pad_token
from taxlens.activations.models.lengths import length_class
from taxlens.activations.models.loading import DTYPES, LoadedModel
from taxlens.activations.store.direct_io import page_aligned

Buffers = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Aim:
    """Where the rows of one batch come from and go to.

    Args:
        source: flat index (sequence * width + token) of every row's token [rows].
        target: row in the buffer [rows].
        runs: (sequence, first token, row in the buffer, length) of tokens that lie side by side in both.
        means: (sequence, first token, stop, row in the buffer) of rows that are means.
        mean_target: row in the buffer of every mean.
    """

    source: torch.Tensor
    target: torch.Tensor
    runs: tuple[tuple[int, int, int, int], ...]
    means: tuple[tuple[int, int, int, int], ...]
    mean_target: torch.Tensor


def fill(
    loaded: LoadedModel,
    request: Request,
    *,
    model: str,
    span: tuple[int, int],
    budget: int,
    buffers: Buffers,
    told: Callable[[int], None] | None = None,
) -> None:
    """Run one model over the readings [first, stop) and fill the buffers, site -> [layer, row, ...].

    Args:
        loaded: the model.
        request: what is captured.
        model: "base" or "aligned".
        span: (first reading, stop).
        budget: most padded tokens a batch.
        buffers: where rows go, in the stored dtype, on the CPU.
        told: called after every batch with its number of sequences.
    """
    readings = request.plan.readings[span[0] : span[1]]
    rows = [getattr(r, model) for r in readings]
    starts = request.plan.first_row[span[0] : span[1]] - request.plan.first_row[span[0]]
    column = 0 if model == "base" else 2
    pad_id = pad_token(loaded.tokenizer)
    collector = Collector(request, buffers)
    last = loaded.anatomy.blocks[max(request.layers)]
    with reading(loaded.model, loaded.anatomy, request.asked, collector.read):
        stop = last.register_forward_hook(_stop)
        try:
            for batch in pack(rows, batch_tokens=budget, length_class=length_class(loaded)):
                ids, mask, positions = (x.to(loaded.device) for x in pad([rows[i] for i in batch], pad_id))
                spans = [[span[column : column + 2] for span in readings[i].spans] for i in batch]
                collector.aim_at(aim(spans, [int(starts[i]) for i in batch], ids.shape[1]))
                run_backbone(loaded.anatomy, ids, mask, positions)
                collector.settle()
                if told is not None:
                    told(len(batch))
            collector.settle(all_of_it=True)
        finally:
            stop.remove()


def _stop(_module: object, _args: object, _output: object) -> None:
    raise StopForward


def aim(spans: Sequence[Sequence[tuple[int, ...]]], starts: Sequence[int], width: int) -> Aim:
    """Return where a batch's rows come from and go to.

    Args:
        spans: for each sequence, (first, stop) token of each of its rows.
        starts: for each sequence, the buffer's row of its first row.
        width: padded length of the batch.
    """
    source, target, means = [], [], []
    runs: list[tuple[int, int, int, int]] = []
    for number, (own, start) in enumerate(zip(spans, starts, strict=True)):
        for k, (low, high) in enumerate(own):
            if high - low > 1:
                means.append((number, low, high, start + k))
                continue
            source.append(number * width + low)
            target.append(start + k)
            if k and runs and runs[-1][0] == number and runs[-1][1] + runs[-1][3] == low:
                runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
            else:
                runs.append((number, low, start + k, 1))
    return Aim(
        source=torch.tensor(source, dtype=torch.int64),
        target=torch.tensor(target, dtype=torch.int64),
        runs=tuple(runs),
        means=tuple(means),
        mean_target=torch.tensor([row for *_, row in means], dtype=torch.int64),
    )


class Collector:
    """Takes what hooks hand over and puts the asked rows into the buffers, cast on the device."""

    def __init__(self, request: Request, buffers: Buffers) -> None:
        self._dtype = DTYPES[request.dtype]
        self._planes = {a: buffers[a.site][request.layers.index(a.layer)] for a in request.asked}
        self._aim: Aim | None = None
        self._source: torch.Tensor | None = None
        self._moving: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._waiting: list[tuple[Any, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]] = []

    def aim_at(self, aim: Aim) -> None:
        """Set where the next batch's rows come from and go to."""
        self._aim, self._source = aim, None

    def read(self, address: Address, x: torch.Tensor) -> None:
        """Take the rows of one address from [batch, token, ...]."""
        if self._aim is None:
            return
        plane, aim = self._planes[address], self._aim
        if aim.means:
            means = torch.stack([x[number, low:high].float().mean(0) for number, low, high, _ in aim.means])
            self._move(plane, aim.mean_target, means.to(self._dtype))
        if not len(aim.target):
            return
        if x.device.type == "cpu" and len(aim.target) > 4 * len(aim.runs):
            for number, low, row, length in aim.runs:
                plane[row : row + length] = x[number, low : low + length]
            return
        if self._source is None or self._source.device != x.device:
            self._source = aim.source.to(x.device)
        self._move(plane, aim.target, x.flatten(0, 1).index_select(0, self._source).to(self._dtype))

    def _move(self, plane: torch.Tensor, target: torch.Tensor, rows: torch.Tensor) -> None:
        """Put rows of the device into a plane of the buffers: at once on the CPU, else by a copy that runs on."""
        if not rows.is_cuda:
            plane.index_copy_(0, target, rows.to("cpu"))
            return
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        host.copy_(rows, non_blocking=True)
        self._moving.append((plane, target, host))

    def settle(self, *, all_of_it: bool = False) -> None:
        """Put what has left the device into the buffers: all but the last batch, whose copies run on meanwhile."""
        if self._moving:
            events = []
            for device in range(torch.cuda.device_count()):
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(device))
                events.append(event)
            self._waiting.append((events, self._moving))
            self._moving = []
        while len(self._waiting) > (0 if all_of_it else 1):
            events, moved = self._waiting.pop(0)
            for event in events:
                event.synchronize()
            for plane, target, host in moved:
                plane.index_copy_(0, target, host)


def new_buffers(request: Request, rows: int) -> dict[str, torch.Tensor]:
    """Return flat memory for the largest shard of one model: site -> [values]."""
    sizes = {site: int(np.prod(shape)) * len(request.layers) * rows for site, shape in request.sites.items()}
    return {site: page_aligned(size, DTYPES[request.dtype]) for site, size in sizes.items()}


def shaped(flat: dict[str, torch.Tensor], request: Request, rows: int) -> Buffers:
    """Return the start of flat memory as site -> [layer, row, ...] for a shard of `rows` rows."""
    out = {}
    for site, shape in request.sites.items():
        size = (len(request.layers), rows, *shape)
        out[site] = flat[site][: int(np.prod(size))].view(size)
    return out
