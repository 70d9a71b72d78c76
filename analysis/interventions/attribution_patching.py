"""Attribution patching: what patching every component's output would do, to first order, from one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from taxlens.activations.hooks.paired_forward import hidden, replaced_output
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.interventions.patching import every_part, patched_values
from taxlens.analysis.scoring.evaluator import ChoiceMeasure, losses
from taxlens.analysis.scoring.metrics import metric_of, smooth_metrics
from taxlens.analysis.weights.gradients import choice_scores, item_batches, metric_slopes
from taxlens.core.errors import one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.stats.intervals import sum_intervals

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """First-order effects of patching the base's output of each component into the aligned model.

    Args:
        suite: name of the suite.
        metric: "probability", "margin" or "nll".
        units: "L.attn" and "L.mlp".
        effects: loss that the patch is predicted to take back, float64 [items, units].
        checked: units that were verified by full activation patching.
        measured: what those patches took back, float64 [items, checked].
    """

    suite: str
    metric: str
    units: tuple[str, ...]
    effects: np.ndarray
    checked: tuple[str, ...] = ()
    measured: np.ndarray | None = None

    @property
    def agreement(self) -> float:
        """Correlation of predicted with measured mean effects over the units checked; nan for fewer than 3."""
        if self.measured is None or len(self.checked) < 3:
            return float("nan")
        places = [self.units.index(name) for name in self.checked]
        return float(np.corrcoef(self.effects[:, places].mean(axis=0), self.measured.mean(axis=0))[0, 1])

    def to_frame(self, *, groups: np.ndarray, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Rows of screen.csv: each unit's first-order effect with its interval, and what a real patch took back.

        Args:
            groups: group of each item.
            draws, seed: of the group bootstrap.
        """
        low, high = sum_intervals(self.effects, groups, draws=draws, seed=seed)
        measured = np.full(len(self.units), np.nan)
        for place, name in enumerate(self.checked):
            assert self.measured is not None
            measured[self.units.index(name)] = self.measured[:, place].mean()
        numbers = {"effect": self.effects.mean(axis=0), "low": low, "high": high, "measured": measured}
        table = pd.DataFrame({"component": self.units} | numbers)
        return table.assign(suite=self.suite, metric=self.metric, agreement=self.agreement)

    def __repr__(self) -> str:
        mean = self.effects.mean(axis=0)
        top = int(np.argmax(np.abs(mean)))
        return (
            f"Screen of {len(self.units)} components on {self.suite} {self.metric}: first {self.units[top]} "
            f"{mean[top]:+.4g}; agreement with {len(self.checked)} real patches {self.agreement:.2f}"
        )


def attribution_patch(
    pair: ModelPair,
    suite: Suite,
    *,
    metric: str = "probability",
    template: str = "plain",
    check: int = 5,
    batch_tokens: int = 1024,
    progress: Progress = SILENT,
) -> Screen:
    """Screen every attention and feed-forward part with one backward pass, and patch the leading ones to check.

    effect(c) = <dM/d output_c at aligned, output_c of base - output_c of aligned>, summed over tokens: the first
    term of what `patch.patched_values(..., part="both", into="aligned")` measures. It is blind where the metric
    has saturated, and like all activation patching it credits what a component carries with what it causes.

    Args:
        pair: the two checkpoints.
        suite: items with choices.
        metric: "probability", "margin" or "nll".
        template: "plain" or "chat".
        check: components of the largest predicted effect, and as many of the others, that are verified by full patching.
        batch_tokens: padded tokens in a batch.
        progress: told of each batch and check.

    Returns:
        The screen, with its check.

    References:
        Attribution patching: Nanda 2023; Syed et al. 2023, arXiv 2310.10348.
    """
    one_of(metric, smooth_metrics(), what="smooth metric")
    aligned = pair.aligned
    encoded = one_prompting(pair, suite, template).rows(suite)
    items = sorted({row.item for row in encoded})
    names = tuple(every_part(aligned.anatomy.n_layers))
    effects = np.zeros((len(items), len(names)))
    batches = item_batches(aligned.model, encoded, batch_tokens)
    with progress.task("screen", total=len(batches), unit="batches") as task:
        for rows in batches:
            owners = np.searchsorted(items, [row.item for row in rows])
            found = _first_order(pair, rows, suite, metric)
            np.add.at(effects, owners, metric_of(metric).sign * found)
            task.advance(1)
    order = np.argsort(-np.abs(effects.mean(axis=0)), kind="stable")
    chosen = [*order[:check], *order[len(order) // 2 :][:check]] if check else []
    checked = tuple(dict.fromkeys(names[i] for i in chosen))
    measure = ChoiceMeasure(pair, (suite,), template=template, metrics=(metric,))
    tuned = measure(aligned.model)
    measured = [
        losses(tuned, patched_values(pair, measure, name, part="both", into="aligned"))[suite.name, metric]
        for name in checked
    ]
    return Screen(suite.name, metric, names, effects, checked, np.column_stack(measured) if measured else None)


def _first_order(pair: ModelPair, rows: list[Any], suite: Suite, metric: str) -> np.ndarray:
    """<gradient, base output - aligned output> of every part, by row, float64 [rows, parts]."""
    with _outputs(pair.base, grad=False) as theirs, torch.no_grad():
        choice_scores(pair.base.model, rows)
    embed = pair.aligned.model.get_input_embeddings()
    with ExitStack() as stack, torch.enable_grad():
        stack.enter_context(replaced_output(embed, lambda stream: stream.detach().requires_grad_(True)))
        mine = stack.enter_context(_outputs(pair.aligned, grad=True))
        scores = choice_scores(pair.aligned.model, rows)
        scores.backward(metric_slopes(rows, scores, suite, metric)[1])
    found = [((t.to(m.device) - m.detach()) * m.grad).sum(dim=(1, 2)) for t, m in zip(theirs, mine, strict=True)]
    return np.column_stack([column.double().cpu().numpy() for column in found])


@contextmanager
def _outputs(loaded: Any, *, grad: bool) -> Iterator[list[torch.Tensor]]:
    """While open, keeps the output of every attention and feed-forward part of one forward pass, in order."""
    anatomy = loaded.anatomy
    parts = [part for both in zip(anatomy.attentions, anatomy.mlps, strict=True) for part in both]
    kept = [torch.empty(0) for _ in parts]

    def keep(place: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            kept[place] = hidden(output)
            if grad:
                kept[place].retain_grad()

        return hook

    handles = [part.register_forward_hook(keep(place)) for place, part in enumerate(parts)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
