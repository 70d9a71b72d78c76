"""A suite's rows run once through both models, and upper halves of either run on whatever stream is put in.

The stream of every kept layer is remembered, so that asking what the layers above make of a changed stream costs
the layers above and nothing below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from taxlens.activations.hooks.paired_forward import hidden, replaced_input
from taxlens.analysis.scoring.logits import asked_logits, target_log_probabilities
from taxlens.analysis.scoring.metrics import item_metrics
from taxlens.analysis.scoring.shared_prompt import asked_places
from taxlens.analysis.scoring.shared_prompt_table import ChoiceTable

Streams = list[torch.Tensor]
"""The residual stream of each batch, [lines, places, d]."""

Put = Callable[[int], torch.Tensor]
"""Number of a batch to the stream that is put in."""


@dataclass(slots=True, eq=False)
class Half:
    """One model of a pair on a table: its streams, and its layers above any of them.

    Args:
        loaded: the model.
        table: the suite's lines.
        streams: layer to the stream after that block, by batch.
        logp: log-probability of every item's choices as the model is, [items, choices].
    """

    loaded: Any
    table: ChoiceTable
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

    def scores(self) -> np.ndarray:
        """Log-probabilities of all choices under the model as it is now (with whatever hooks are on it)."""
        return self._scores(None)

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
        for batch, lines in enumerate(table.lines):
            if now is not None:
                now[:] = [batch]
            for line in lines:
                found[line.item, list(line.ends)] = 0.0
            asked = [(line.item, line.choices[number]) for line in lines for number, _, _ in line.asked]
            np.add.at(found, tuple(np.array(asked).T), self._batch_scores(batch))
        return found

    def _batch_scores(self, batch: int) -> np.ndarray:
        """Log-probability of every asked token of a batch, in the order of its lines."""
        table, model = self.table, self.loaded.model
        places, at, targets = asked_places(table.lines[batch])
        logits = asked_logits(model, table.ids[batch], table.mask(batch, model.dtype), table.positions[batch], places)
        return target_log_probabilities(logits, at, targets)[0].numpy()


def probability(table: ChoiceTable, logp: np.ndarray) -> np.ndarray:
    """Each item's probability of the right choice among its choices, float64 [items]."""
    return item_metrics(logp, table.gold, metrics=("probability",))["probability"]


def _keeper(kept: Streams) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(hidden(output).detach().to("cpu", torch.float32, copy=True))

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
