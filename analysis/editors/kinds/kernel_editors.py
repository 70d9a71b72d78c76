"""Graded kernels: directions taken out by layer, strongest at one layer, their ten numbers searched (heretic).

References:
    heretic 2026: the kernel, the ranges, rows that keep their norms, and the search, as its authors describe them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from taxlens.analysis.editors.edit import Deltas, Edit, added, weight_edit
from taxlens.analysis.editors.kinds.parzen_search import ParzenSearch
from taxlens.analysis.editors.kinds.refusal_directions import (
    RefusalScore,
    first_log_probabilities,
    mean_states,
    prompt_rows,
    refused_states,
    spared,
)
from taxlens.analysis.editors.task import EditTask
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

KERNEL_RANK = 3
"""Rank at which a norm-preserving edit of a matrix is kept."""
RANDOM = 0.3
"""Share of the trials that are drawn at random before the estimator takes over: 60 of the published 200."""
JUDGED_ON = 48
"""Validation prompts of each kind that a trial is judged on."""
COMPONENTS = ("o", "down")
"""What is edited: attention out and MLP down, each with a kernel of its own."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """How strongly each layer is edited: from `most` at its centre down to `most * least` at `reach`, nothing beyond.

    Args:
        most: weight at the centre.
        centre: layer, may lie between two.
        least: share of `most` that is left at the reach.
        reach: layers.
    """

    most: float
    centre: float
    least: float
    reach: float

    def weight(self, layer: int) -> float:
        """Weight of a layer's edit."""
        away = abs(layer - self.centre)
        if away > self.reach:
            return 0.0
        return self.most + (away / self.reach if self.reach else 0.0) * (self.most * self.least - self.most)


def heretic(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Refusal directions taken out by a kernel over layers, rows keeping their norms; the kernel is searched.

    Directions are unit(mean of harmful - mean of harmless prompts) at the last position of each layer, without their part
    along the harmless mean. The search lowers refusals of harm and the divergence from the aligned model on harmless
    prompts, as published, for `task.search` trials (200 published); refusals are read as first-token log-odds in place of
    100 generated tokens. Candidates lie evenly on the trials that no other one beats.
    """
    states, _ = mean_states(task)
    toward = states.harm[:, -1] - states.harmless[:, -1]
    yield from _searched(task, "heretic", toward, states.harmless[:, -1], tries, progress)


def heretic_reaimed(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """The same kernel and search along the false-refusal vector, spared along the refusal direction.

    The search lowers refusals of the taxed prompts and the refusals of harm that are lost.
    """
    states, _ = mean_states(task)
    r = states.harm[:, -1] - states.harmless[:, -1]
    w = spared(refused_states(states)[:, -1] - states.harmless[:, -1], r, 1.0)
    yield from _searched(task, "heretic_reaimed", w, states.harmless[:, -1], tries, progress)


def _searched(
    task: EditTask, editor: str, vectors: np.ndarray, harmless: np.ndarray, tries: int, progress: Progress
) -> Iterator[Edit]:
    units = _unit(spared(_unit(vectors), _unit(harmless), 1.0))
    judge = _judge(task, harm_alone=editor == "heretic")
    rng = np.random.default_rng([task.seed, 23])
    search = ParzenSearch(10, binary=(0,), startup=max(1, round(RANDOM * task.search)), rng=rng)
    with progress.task(editor, total=task.search, unit="trials") as bar:
        for _ in range(task.search):
            x = search.ask()
            with added(task.pair.aligned.model, _deltas_at(task.pair, units, x)) as model:
                search.tell(x, judge(model))
            bar.advance(1)
    best = search.best()
    picked = np.unique(np.round(np.arange(1, tries + 1) / (tries + 1) * (len(best) - 1)).astype(int))
    note = (f"{task.search} trials, {search.startup} of them at random, judged on validation prompts",)
    for place in picked:
        x = search.asked[best[place]]
        deltas = partial(_deltas_at, task.pair, units, x)
        yield weight_edit(task.pair, editor, f"trial {best[place] + 1}", deltas, free=10, notes=note)


def kernels_at(x: np.ndarray, n_layers: int) -> tuple[dict[str, Kernel], float | None]:
    """Kernels by component, and the layer whose direction serves all (None: each has its own), from ten numbers in 0..1.

    Ranges as published, L - 1 the last layer: centre .6 to 1 of it, reach 1 to .6 of it, weight .8 to 1.5 for attention and
    -.25 to 1.5, at least 0, for the MLP; one direction of layer .4 to .9 of it, or a direction a layer.
    """
    last = n_layers - 1
    kernels = {}
    for k, component in enumerate(COMPONENTS):
        most, centre, least, reach = x[2 + 4 * k : 6 + 4 * k]
        most = 0.8 + 0.7 * most if component == "o" else max(0.0, -0.25 + 1.75 * most)
        far = max(1.0, 0.6 * last)
        kernels[component] = Kernel(float(most), (0.6 + 0.4 * centre) * last, float(least), 1 + reach * (far - 1))
    return kernels, None if x[0] < 0.5 else float((0.4 + 0.5 * x[1]) * last)


def _deltas_at(pair: ModelPair, units: np.ndarray, x: np.ndarray) -> Deltas:
    return kernel_deltas(pair, units, *kernels_at(x, len(units)))


def _judge(task: EditTask, *, harm_alone: bool) -> Callable[[object], tuple[float, float]]:
    """What a trial is judged by, both to be lowered, on validation prompts."""
    score, aligned = RefusalScore(task), task.pair.aligned.model
    names = {"harm": [task.harm], "harmless": [task.harmless], "taxed": list(task.taxed)}
    rows = {
        kind: [row for name in mine for row in prompt_rows(task, name, task.validation)][:JUDGED_ON]
        for kind, mine in names.items()
    }
    plain = first_log_probabilities(aligned, rows["harmless"])
    refused = score(first_log_probabilities(aligned, rows["harm"]))

    def published(model: object) -> tuple[float, float]:
        edited = first_log_probabilities(model, rows["harmless"])
        apart = (plain.exp() * (plain - edited)).sum(1).clamp(min=0)
        return float(score(first_log_probabilities(model, rows["harm"])).mean()), float(apart.mean())

    def reaimed(model: object) -> tuple[float, float]:
        lost = (refused - score(first_log_probabilities(model, rows["harm"]))).clamp(min=0)
        return float(score(first_log_probabilities(model, rows["taxed"])).mean()), float(lost.mean())

    return published if harm_alone else reaimed


def kernel_deltas(pair: ModelPair, units: np.ndarray, kernels: dict[str, Kernel], index: float | None) -> Deltas:
    """What a kernel's edit adds to each attention-out and MLP-down matrix.

    Rows are normalised, the direction is taken out, rows are normalised again and given their old norms back; of the
    difference the leading `KERNEL_RANK` triples stay.

    Args:
        pair: the pair whose aligned model is edited.
        units: a unit direction a layer, [layers, d].
        kernels: "o" and "down" to kernel.
        index: layer (between two: interpolated) whose direction serves all; None: each layer has its own.
    """
    found = {}
    for role in pair.aligned.anatomy.modules:
        if role.role not in kernels or role.layer is None:
            continue
        strength = kernels[role.role].weight(role.layer)
        if not strength:
            continue
        unit = torch.as_tensor(units[role.layer] if index is None else between(units, index), dtype=torch.float32)
        module = pair.aligned.model.get_submodule(role.name)
        stored = module.weight.detach().float()
        linear = isinstance(module, torch.nn.Linear)
        weight = stored if linear else stored.T
        norms = weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
        rows = weight / norms
        rows = rows - strength * unit[:, None] * (unit @ rows)
        change = leading(norms * rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12) - weight, KERNEL_RANK)
        found[f"{role.name}.weight"] = change if linear else change.T.contiguous()
    return found


def leading(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The leading triples of a matrix: exact up to 256 rows or columns, by random projection above."""
    if min(matrix.shape) > 256:
        draws = torch.randn(matrix.shape[1], rank + 8, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(matrix @ draws.to(matrix))[0]
        for _ in range(2):
            basis = torch.linalg.qr(matrix @ (matrix.T @ basis))[0]
        u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        u = basis @ u
    else:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def between(units: np.ndarray, index: float) -> np.ndarray:
    """The direction at a layer index that may lie between two, of unit length."""
    low = int(np.floor(index))
    high = min(low + 1, len(units) - 1)
    return _unit(units[low] + (index - low) * (units[high] - units[low]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)
