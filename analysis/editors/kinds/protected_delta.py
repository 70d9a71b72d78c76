"""Keep of the update what costs the capability least, by second-order sensitivity: Safe Delta with the roles swapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from taxlens.activations.items.batches import pad
from taxlens.analysis.editors.edit import Deltas, Edit, added, weight_edit
from taxlens.analysis.editors.kinds.refusal_directions import prompt_rows
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.weights.units import difference_of
from taxlens.core.progress import SILENT, Progress

NEVER = 0.15
"""Share of the columns, the most sensitive ones, that are never taken."""
BLOCK, SPREAD = 1024, 4
"""Columns that share a budget, and columns after which errors are spread to the later ones."""
PROMPTS = 32


def protected_delta(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Layer by layer, take over the update's entries that the taxed prompts feel least, and compensate for the rest.

    Safe Delta (arXiv 2505.12038) starts at a safe model and takes over what hurts safety least; here the reference is the
    base, and the inputs are those of the taxed training prompts. The inputs of a block are read after the blocks below it
    were edited.
    """
    for size in (1.0, 0.3, 3.0, 10.0, 30.0)[: max(1, tries)]:
        yield weight_edit(
            task.pair, "protected_delta", f"s = {size:g}", partial(_deltas, task, size), free=1,
            notes=("the published s is .11 with another normalisation of inputs; swept",),
        )  # fmt: skip


def _deltas(task: EditTask, size: float) -> Deltas:
    pair, difference = task.pair, difference_of(task.pair)
    rows = [row for name in task.taxed for row in prompt_rows(task, name, task.train)][:PROMPTS]
    found: dict[str, torch.Tensor] = {}
    if not rows:
        return found
    for layer in range(pair.aligned.anatomy.n_layers):
        roles = [r for r in pair.aligned.anatomy.modules if r.layer == layer and r.kind in ("attn", "mlp")]
        changed = [
            r.name for r in roles
            if r.role not in ("router", "experts", "q_norm", "k_norm") and bool(difference.change(r.name, "weight").any())
        ]  # fmt: skip
        if not changed:
            continue
        with added(pair.aligned.model, found) as model:
            inputs = _inputs(model, changed, rows)
        for name in changed:
            d = difference.change(name, "weight").float()
            kept = protect(d, inputs[name], size) - d
            found[f"{name}.weight"] = kept.T.contiguous() if difference.transposed(name) else kept
    return found


def protect(d: torch.Tensor, x: torch.Tensor, size: float) -> torch.Tensor:
    """The change that stays of D [out, in], compensation included, from inputs x [n, in].

    H = 2 x'x / n plus a hundredth of its mean diagonal; h the Cholesky diagonal of its inverse. Entries are taken in the
    order of 1 / h^2 of their column, least sensitive first, while the sum of D^2 / h^2 stays within
    mean(1 / h^2) * (size / 2) * rows / 4096; what was taken is balanced on later columns (Optimal Brain Surgeon).
    """
    wide = d.double()
    hessian = 2 * x.double().T @ x.double() / len(x)
    hessian += 0.01 * hessian.diagonal().mean().clamp(min=1e-12) * torch.eye(len(hessian), dtype=torch.float64)
    root = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    h = root.diagonal()
    kept = torch.zeros_like(wide)
    for start in range(0, wide.shape[1], BLOCK):
        block = slice(start, min(start + BLOCK, wide.shape[1]))
        kept[:, block] = torch.where(_taken(wide[:, block], h[block], size), wide[:, block], 0.0)
    balanced, pending = kept.clone(), []
    for j in range(wide.shape[1]):
        pending.append(j)
        if len(pending) == SPREAD or j == wide.shape[1] - 1:
            error = kept[:, pending] / h[pending]
            balanced[:, j + 1 :] += error @ root[pending, j + 1 :]
            pending = []
    return balanced.to(d.dtype)


def _taken(q: torch.Tensor, h: torch.Tensor, size: float) -> torch.Tensor:
    """Which entries of a block are taken over, bool [out, columns]."""
    sensitivity = 1 / h**2
    order = sensitivity.argsort()
    allowed = order[: len(order) - int(NEVER * len(order))]
    cost = (q**2 * sensitivity).T[allowed].flatten()  # columns in order, their entries one after the other
    within = cost.cumsum(0) <= sensitivity.mean() * (size / 2) * len(q) / 4096
    taken = torch.zeros_like(q, dtype=torch.bool).T.contiguous()
    taken[allowed] = within.view(len(allowed), len(q))
    return taken.T


@torch.no_grad()
def _inputs(model: Any, names: list[str], rows: list[Any]) -> dict[str, torch.Tensor]:
    """What each module is given on some prompts, float32 [tokens, in]."""
    ids, mask, positions = pad(rows, 0)
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], _kwargs: Any = None) -> None:
            found[name] = args[0].detach().float().cpu()[mask.bool()]

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_pre_hook(keep(name))
            stack.callback(handle.remove)
        model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return found
