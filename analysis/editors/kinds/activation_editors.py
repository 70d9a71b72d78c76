"""Editors that take directions of the residual stream out: refusal ablation, false-refusal vectors, graded kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.analysis.editors.edit import Deltas, Edit, weight_edit
from taxlens.analysis.editors.kinds.refusal_directions import (
    States,
    choose,
    direction_edit,
    direction_hooks_edit,
    mean_states,
    spared,
    writers,
)  # fmt: skip
from taxlens.analysis.editors.task import EditTask
from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

DIALS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
KERNEL_RANK = 3
"""Rank at which a norm-preserving edit of a matrix is kept."""


def ablate(task: EditTask, *, tries: int = 1, progress: Progress = SILENT) -> Iterator[Edit]:
    """Take the refusal direction out of every matrix that writes to the stream (Arditi et al. 2024, arXiv 2406.11717)."""
    states, positions = mean_states(task)
    found = choose(task, states.harm - states.harmless, positions, on="harm", most_divergence=0.1)
    where = f"layer {found.layer}, position {found.position}"
    for strength in _first(STRENGTHS, tries):
        yield direction_edit(task, "ablate", f"{where}, strength {strength:g}", found.vector, strength=strength)


def false_refusal(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Take out the false-refusal vector, spared along the refusal direction by a dial (arXiv 2410.03415), as weights."""
    yield from _false_refusal(task, "false_refusal", tries, hooks=False)


def false_refusal_hooks(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """The same by hooks, at block inputs, attention and MLP outputs: no weight changes."""
    yield from _false_refusal(task, "false_refusal_hooks", tries, hooks=True)


def _false_refusal(task: EditTask, editor: str, tries: int, *, hooks: bool) -> Iterator[Edit]:
    states, positions = mean_states(task)
    taxed, r = _refused(states), states.harm - states.harmless
    settings = [(dial, strength) for strength in STRENGTHS for dial in DIALS]
    known: dict[float, np.ndarray] = {}
    for dial, strength in _first(settings, tries):
        if dial not in known:
            w = spared(taxed - states.harmless, r, dial)
            known[dial] = choose(task, w, positions, on="taxed", most_divergence=0.2).vector
        label = f"dial {dial:g}, strength {strength:g}"
        if hooks:
            tensors = {"vector": torch.as_tensor(known[dial]), "strength": torch.tensor(strength)}
            yield direction_hooks_edit(task.pair, editor, label, tensors)
        else:
            yield direction_edit(task, editor, label, known[dial], strength=strength)


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
    """Refusal directions taken out by a kernel over layers, rows keeping their norms; parameters drawn at random.

    Directions are unit(mean of harmful - mean of harmless prompts) at the last position of each layer, without their part
    along the harmless mean. Published with 200 trials of a tree-structured estimator; here as many random draws from the
    published ranges as every editor has tries, chosen by the comparison's own rule.

    References:
        heretic 2026 (method as described by its authors).
    """
    states, _ = mean_states(task)
    yield from _kernels(task, "heretic", states.harm[:, -1] - states.harmless[:, -1], states.harmless[:, -1], tries)


def heretic_reaimed(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """The same kernel along the false-refusal vector, spared along the refusal direction."""
    states, _ = mean_states(task)
    r = states.harm[:, -1] - states.harmless[:, -1]
    w = spared(_refused(states)[:, -1] - states.harmless[:, -1], r, 1.0)
    yield from _kernels(task, "heretic_reaimed", w, states.harmless[:, -1], tries)


def _kernels(task: EditTask, editor: str, vectors: np.ndarray, harmless: np.ndarray, tries: int) -> Iterator[Edit]:
    units = _unit(vectors)
    units = _unit(spared(units, _unit(harmless), 1.0))
    last, rng = len(units) - 1, np.random.default_rng([task.seed, 23])
    for number in range(tries):
        index = None if rng.random() < 0.5 else rng.uniform(0.4, 0.9) * last
        kernels = {}
        for component in ("o", "down"):
            most = rng.uniform(0.8, 1.5) if component == "o" else max(0.0, rng.uniform(-0.25, 1.5))
            centre, least = rng.uniform(0.6, 1.0) * last, rng.uniform(0, 1)
            kernels[component] = Kernel(most, centre, least, rng.uniform(1, max(1.0, 0.6 * last)))
        deltas = partial(kernel_deltas, task.pair, units, kernels, index)
        note = ("random draws in place of the published estimator's 200 trials",)
        yield weight_edit(task.pair, editor, f"draw {number}", deltas, free=8, notes=note)


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
        change = norms * rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12) - weight
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
        change = (u[:, :KERNEL_RANK] * s[:KERNEL_RANK]) @ vh[:KERNEL_RANK]
        found[f"{role.name}.weight"] = change if linear else change.T.contiguous()
    return found


def between(units: np.ndarray, index: float) -> np.ndarray:
    """The direction at a layer index that may lie between two, of unit length."""
    low = int(np.floor(index))
    high = min(low + 1, len(units) - 1)
    return _unit(units[low] + (index - low) * (units[high] - units[low]))


def write_projection(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Undo only what the update writes along the false-refusal vector: D <- (I - strength u u') D, the base untouched."""
    states, positions = mean_states(task)
    w = spared(_refused(states) - states.harmless, states.harm - states.harmless, 1.0)
    vector = choose(task, w, positions, on="taxed", most_divergence=0.2).vector
    unit = torch.as_tensor(vector / np.linalg.norm(vector), dtype=torch.float32)

    def deltas(strength: float) -> Deltas:
        from taxlens.analysis.weights.units import difference_of

        difference, found = difference_of(task.pair), {}
        for name in writers(task.pair):
            d = difference.change(name, "weight").float()
            embedded = isinstance(task.pair.aligned.model.get_submodule(name), torch.nn.Embedding)
            part = (d @ unit)[:, None] * unit if embedded else unit[:, None] * (unit @ d)
            part = part.T.contiguous() if difference.transposed(name) else part
            if bool(part.any()):
                found[f"{name}.weight"] = -strength * part
        return found

    for strength in _first((1.0, 1.5, 2.0, 0.5), tries):
        yield weight_edit(
            task.pair, "write_projection", f"strength {strength:g}", partial(deltas, strength), free=len(vector)
        )


def refused_taxed_prompts(task: EditTask) -> str:
    """Why false-refusal vectors cannot be had for this task; blank where they can."""
    try:
        states, _ = mean_states(task)
    except UsageError as error:
        return str(error).splitlines()[0]
    return "" if states.taxed is not None else "none of the taxed suites' prompts is refused by the aligned model"


def _refused(states: States) -> np.ndarray:
    if states.taxed is None:
        raise UsageError(explain("no taxed prompt is refused: there is no false-refusal vector.", ()))
    return states.taxed


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


def _first(values: Sequence[Any], tries: int) -> list[Any]:
    """The first so many settings: the published default leads."""
    return list(values[: max(1, tries)])
