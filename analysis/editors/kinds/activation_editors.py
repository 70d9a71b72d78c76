"""Editors that take directions of the residual stream out: refusal ablation and false-refusal vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from taxlens.analysis.editors.edit import Deltas, Edit, weight_edit
from taxlens.analysis.editors.kinds.refusal_directions import (
    choose,
    direction_edit,
    direction_hooks_edit,
    mean_states,
    refused_states,
    spared,
    writers,
)  # fmt: skip
from taxlens.analysis.editors.task import EditTask
from taxlens.core.errors import UsageError
from taxlens.core.progress import SILENT, Progress

DIALS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
STRENGTHS = (1.0, 0.75, 0.5, 0.25)


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
    taxed, r = refused_states(states), states.harm - states.harmless
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


def write_projection(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Undo only what the update writes along the false-refusal vector: D <- (I - strength u u') D, the base untouched."""
    states, positions = mean_states(task)
    w = spared(refused_states(states) - states.harmless, states.harm - states.harmless, 1.0)
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


def _first(values: Sequence[Any], tries: int) -> list[Any]:
    """The first so many settings: the published default leads."""
    return list(values[: max(1, tries)])
