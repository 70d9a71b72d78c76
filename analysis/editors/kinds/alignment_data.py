"""Editors that never see a taxed item: layer averages on alignment data (HMA), and what alignment itself needs (Localize)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from taxlens.analysis.editors.edit import Edit, unit_edit
from taxlens.analysis.editors.kinds.optimise import Adam
from taxlens.analysis.editors.kinds.unit_model import unit_model
from taxlens.analysis.editors.objective import Objective, Prices
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.frontier.plans import Units, changed_units
from taxlens.analysis.weights.units import difference_of
from taxlens.core.progress import SILENT, Progress

ALIGNMENT = Prices(choice=0, harmless_choice=0, harm=0, harm_nll=1.0, harmless_nll=1.0)
"""Likelihood of refusals on harmful prompts and of answers on harmless ones: alignment data alone."""
STEPS = 30
EPSILON = 0.2


def hma(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Three groups of layers averaged with the base, the mean ratio fixed, on alignment data (arXiv 2309.06256)."""
    yield from _averaged(task, "hma", 3, tries)


def hma_layers(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """The same with a ratio for every layer."""
    yield from _averaged(task, "hma_layers", None, tries)


def _averaged(task: EditTask, editor: str, groups: int | None, tries: int) -> Iterator[Edit]:
    """One candidate a mean ratio m: layer group k is a_k base + (1 - a_k) aligned, embeddings and norms as aligned."""
    units = changed_units(difference_of(task.pair), task.unit)
    linear = np.array([layer >= 0 and not name.endswith(".norm") for name, layer in zip(units.names, units.layers)])
    chosen = Units(units.level, tuple(np.array(units.names)[linear]), units.layers[linear], units.energy[linear])
    n_layers = task.pair.aligned.anatomy.n_layers
    index = torch.as_tensor(layer_groups(chosen.layers, n_layers, groups))
    objective = Objective(task)
    for m in (0.2, 0.1, 0.3, 0.5)[: max(1, tries)]:
        theta = torch.zeros(int(index.max()) + 1, dtype=torch.float64, requires_grad=True)

        def ratios(theta: torch.Tensor = theta, m: float = m) -> torch.Tensor:
            return group_ratios(theta, m)

        batches, optimiser = objective.batches(3), Adam(theta)
        for _ in range(STEPS):
            _pull(ratios(), m, chosen, index).backward()
            with unit_model(task.pair, chosen.names, lambda: ratios()[index], level=task.unit) as model:
                objective.backward(model, next(batches), ALIGNMENT)
            optimiser.step(0.1)
        undone = ratios().detach()[index].clamp(0, 1).numpy()
        undo = dict(zip(chosen.names, undone.tolist(), strict=True))
        energy = float(undone**2 @ chosen.energy / units.total)
        yield unit_edit(task.pair, editor, f"mean ratio {m:g}", undo, energy=energy, free=len(theta), level=units.level)


def group_ratios(theta: torch.Tensor, m: float) -> torch.Tensor:
    """a_k = m K (sigmoid(theta_k) + eps) / sum_j (sigmoid(theta_j) + eps): their mean is m whatever theta is."""
    weight = torch.sigmoid(theta) + EPSILON
    return m * len(theta) * weight / weight.sum()


def layer_groups(layers: np.ndarray, n_layers: int, groups: int | None) -> np.ndarray:
    """Group of each unit: one a layer (None), or three blocks.

    The published cuts are layers 8 and 16, and 11 and 21 above 30 layers; a model of fewer than 17 layers is cut in thirds.
    """
    if groups is None:
        return np.unique(layers, return_inverse=True)[1]
    cuts = (11, 21) if n_layers > 30 else (8, 16) if n_layers > 16 else (n_layers // 3, 2 * n_layers // 3)
    return np.unique(np.digitize(layers, cuts), return_inverse=True)[1]


def _pull(ratios: torch.Tensor, m: float, units: Units, index: torch.Tensor) -> torch.Tensor:
    """1e-4 * sum over matrices of 25 / (|layer - 13| + 1) * |a - m|."""
    seen: dict[tuple[str, int], int] = {}
    for name, layer, group in zip(units.names, units.layers, index.tolist()):
        seen[name.rpartition(".")[0], int(layer)] = group
    terms = [25 / (abs(layer - 13) + 1) * (ratios[group] - m).abs() for (_, layer), group in seen.items()]
    return 1e-4 * torch.stack(terms).sum()


def localize(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Keep only the part of the update that alignment needs: a mask learned on refusals and harmless answers.

    One real number S a unit, the model base + sigmoid(S) D, the loss the likelihood of the alignment data plus a price on
    the mean of the mask; S starts at 5 on the tenth of the units with the most energy and at -5 elsewhere; entries above
    one half stay. The paper's L1 term is implemented (its published code pushes the other way), by Adam in place of one
    step an epoch at a rate of 1e7, over the task's units in place of single weights.

    References:
        Localize-and-Stitch, arXiv 2408.13656.
    """
    units = changed_units(difference_of(task.pair), task.unit)
    objective = Objective(task)
    for price in (1.0, 0.3, 3.0, 10.0)[: max(1, tries)]:
        start = torch.full((len(units.names),), -5.0, dtype=torch.float64)
        start[torch.as_tensor(np.argsort(-units.energy)[: max(1, len(start) // 10)].copy())] = 5.0
        logits = start.requires_grad_(True)
        batches, optimiser = objective.batches(5), Adam(logits)
        for _ in range(STEPS):
            (price * torch.sigmoid(logits).mean()).backward()
            with unit_model(task.pair, units.names, lambda s=logits: 1 - torch.sigmoid(s), level=task.unit) as model:
                objective.backward(model, next(batches), ALIGNMENT)
            optimiser.step(0.5)
        yield _kept(task, units, logits.detach().numpy() > 0, price)


def _kept(task: EditTask, units: Units, kept: np.ndarray, price: float) -> Edit:
    undone = (~kept).astype(float)
    energy = float(undone @ units.energy / units.total)
    undo: dict[str, Any] = dict(zip(units.names, undone.tolist(), strict=True))
    notes = (f"{kept.mean():.1%} of the units and {1 - energy:.1%} of the update's energy are kept",)
    return unit_edit(
        task.pair, "localize", f"price {price:g}", undo, energy=energy, free=len(kept), notes=notes, level=units.level
    )
