"""A suite's rows run once through both models, and upper halves of either run on whatever stream is put in.

The stream of every kept layer is remembered, so that asking what the layers above make of a changed stream costs
the layers above and nothing below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from taxlens.activations.tokens import encode_suite, pad
from taxlens.analysis.forward import position_limit
from taxlens.analysis.metrics import item_metrics
from taxlens.analysis.slopes import item_batches
from taxlens.analysis.twin import hidden, replaced_input

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.activations.pair import ModelPair
    from taxlens.activations.tokens import Row

Streams = list[torch.Tensor]
"""The residual stream of each batch, [rows, positions, d]."""

Put = Callable[[int], torch.Tensor]
"""Number of a batch to the stream that is put in."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A suite's rows in batches, with what is asked of each.

    Args:
        suite: items with choices.
        rows: rows of each batch; all choices of an item lie in one batch.
        ids, mask, positions: padded tensors of each batch.
        items: indices of the suite's items that have choices, in order.
        gold: index of each such item's right choice.
    """

    suite: Suite
    rows: list[list[Row]]
    ids: list[torch.Tensor]
    mask: list[torch.Tensor]
    positions: list[torch.Tensor]
    items: np.ndarray
    gold: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """Group of each item."""
        return np.array([self.suite.items[i].group for i in self.items], dtype=object)

    def real(self, batch: int) -> torch.Tensor:
        """Where a batch has a token that is not the first of its row, bool [rows, positions]."""
        return (self.mask[batch] > 0) & (self.positions[batch] > 0)

    def asked(self, batch: int) -> torch.Tensor:
        """Where a batch predicts a choice's token, bool [rows, positions]."""
        wanted = torch.zeros(self.mask[batch].shape, dtype=torch.bool)
        for place, row in enumerate(self.rows[batch]):
            wanted[place, row.start - 1 : len(row.ids) - 1] = True
        return wanted

    def by_item(self, batch: int) -> np.ndarray:
        """The item (counted among those with choices) of each row of a batch."""
        place = {int(item): n for n, item in enumerate(self.items)}
        return np.array([place[row.item] for row in self.rows[batch]])


def lay_out(pair: ModelPair, suite: Suite, *, template: str = "plain", batch_tokens: int = 2048) -> Table:
    """A suite's rows as both models will read them."""
    aligned = pair.aligned
    rows = encode_suite(
        suite, aligned.tokenizer, template=template, max_length=position_limit(aligned.model),
        chat_template=aligned.chat_template if template == "chat" else None,
    )  # fmt: skip
    items = sorted({row.item for row in rows})
    batches = item_batches(rows, items, batch_tokens)
    padded = [pad(batch, 0) for batch in batches]
    gold = np.array([suite.items[i].gold for i in items], dtype=np.int64)
    return Table(suite, batches, *(list(one) for one in zip(*padded, strict=True)), np.array(items), gold)


@dataclass(slots=True, eq=False)
class Half:
    """One model of a pair on a table: its streams, and its layers above any of them.

    Args:
        loaded: the model.
        table: the rows.
        streams: layer to the stream after that block, by batch.
        logp: log-probability of every item's choices as the model is, [items, choices].
    """

    loaded: Any
    table: Table
    streams: dict[int, Streams] = field(default_factory=dict)
    logp: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def read(self, layers: Sequence[int]) -> None:
        """Run the rows once and remember the streams after the layers that are not remembered yet."""
        wanted = [layer for layer in layers if layer not in self.streams]
        if not wanted and self.logp.size:
            return
        kept: dict[int, Streams] = {layer: [] for layer in wanted}
        with ExitStack() as stack:
            for layer in wanted:
                block = self.loaded.anatomy.blocks[layer]
                stack.callback(block.register_forward_hook(_keeper(kept[layer])).remove)
            self.logp = self._scores(None)
        self.streams |= kept

    def above(self, layer: int, put: Put) -> np.ndarray:
        """Log-probabilities of all choices when `put(batch)` is the stream after a layer, [items, choices]."""
        anatomy = self.loaded.anatomy
        last = layer == anatomy.n_layers - 1
        entrance = (
            self.loaded.model.get_submodule(anatomy.role("final_norm").name) if last else anatomy.blocks[layer + 1]
        )
        now: list[int] = []
        with ExitStack() as stack:
            for block in anatomy.blocks[: layer + 1]:
                stack.enter_context(_skipped(block))
            stack.enter_context(replaced_input(entrance, lambda stream: put(now[-1]).to(stream)))
            return self._scores(now)

    def _scores(self, now: list[int] | None) -> np.ndarray:
        table = self.table
        width = max(len(table.suite.items[i].choices) for i in table.items)
        found = np.full((len(table.items), width), np.nan)
        for batch, rows in enumerate(table.rows):
            if now is not None:
                now[:] = [batch]
            owners = table.by_item(batch)
            for place, value in enumerate(self._batch_scores(batch).tolist()):
                found[owners[place], rows[place].choice] = value
        return found

    def _batch_scores(self, batch: int) -> torch.Tensor:
        table, model = self.table, self.loaded.model
        where = table.asked(batch).nonzero()
        targets = torch.cat([torch.tensor(row.ids[row.start :]) for row in table.rows[batch]])

        def gather(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[where[:, 0], where[:, 1]][None]
            return output

        handle = model.base_model.register_forward_hook(gather)
        device = self.loaded.device
        try:
            with torch.no_grad():
                logits = model(
                    input_ids=table.ids[batch].to(device), attention_mask=table.mask[batch].to(device),
                    position_ids=table.positions[batch].to(device), use_cache=False,
                ).logits[0].float()  # fmt: skip
        finally:
            handle.remove()
        logp = (logits.gather(1, targets[:, None].to(device))[:, 0] - logits.logsumexp(1)).double().cpu()
        return torch.zeros(len(table.rows[batch]), dtype=torch.float64).index_add(0, where[:, 0], logp)


def probability(table: Table, logp: np.ndarray) -> np.ndarray:
    """Each item's probability of the right choice among its choices, float64 [items]."""
    return item_metrics(logp, table.gold, metrics=("probability",))["probability"]


def _keeper(kept: Streams) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(hidden(output).detach().float().cpu().clone())

    return hook


@contextmanager
def _skipped(block: nn.Module) -> Iterator[None]:
    """While open, a block hands its input on untouched, in the form that it gives its own output in."""
    own = vars(block).get("forward")
    plain = block.forward
    form: list[bool] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        if not form:  # once: does this architecture's block give a tuple?
            form.append(isinstance(plain(*args, **kwargs), tuple))
        return (stream,) if form[0] else stream

    block.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del block.forward
        else:
            block.forward = own  # type: ignore[method-assign]
