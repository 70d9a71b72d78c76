"""Editors that see no item: functions of the weight difference D = aligned - base alone.

All hand back `base + f(D)`. What they decide by is size: of entries, of singular values, or nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.analysis.editors.edit import Deltas, Edit, unit_edit, weight_edit
from taxlens.analysis.editors.task import EditTask
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

LEAST_ENTRIES = 1024
"""DG-Hard leaves smaller matrices whole."""


def changes(pair: ModelPair) -> dict[str, torch.Tensor]:
    """D of every parameter that changed, float32, in its own shape; a tied tensor is there once."""
    base, aligned = (dict(m.model.named_parameters()) for m in (pair.base, pair.aligned))
    found = {}
    for name, tensor in aligned.items():
        if tensor is base[name] or torch.equal(tensor, base[name]):
            continue
        found[name] = tensor.detach().float() - base[name].detach().float()
    return found


def _rewritten(pair: ModelPair, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Deltas:
    """What to add to the aligned model so that every D becomes `change(name, D)`."""
    return {name: change(name, d) - d for name, d in changes(pair).items()}


def _edit(
    task: EditTask, editor: str, label: str, change: Callable[[str, torch.Tensor], torch.Tensor], **more: Any
) -> Edit:
    return weight_edit(task.pair, editor, label, partial(_rewritten, task.pair, change), **more)


def _scaled(task: EditTask, editor: str, kept: float) -> Edit:
    """Base plus `kept` times D, as a plan over whole components."""
    from taxlens.analysis.weights.units import difference_of

    undo = dict.fromkeys(difference_of(task.pair).units("component"), 1 - kept)
    return unit_edit(
        task.pair, editor, f"{kept:g} of the update", undo, energy=(1 - kept) ** 2, free=1, level="component"
    )


def spread(values: tuple[float, ...], tries: int) -> list[float]:
    """At most so many of the values, evenly spread, the ends among them."""
    if tries >= len(values):
        return list(values)
    places = np.unique(np.round(np.linspace(0, len(values) - 1, tries)).astype(int))
    return [values[i] for i in places]


STEPS = tuple(round(0.95 - 0.05 * k, 2) for k in range(14))
"""Interpolation: .95 to .3 of the update, in steps of .05."""


def interpolation(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """base + a D for a from .95 to .3 in steps of .05 (task arithmetic, WiSE-FT, partial adaptation arXiv 2504.11626)."""
    for kept in spread(STEPS, tries):
        yield _scaled(task, "interpolation", kept)


def extrapolation(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """base + a D beyond both ends: a above 1 or below 0."""
    for kept in spread((1.1, 1.25, 1.5, -0.1, -0.25), tries):
        yield _scaled(task, "extrapolation", kept)


def soup(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """The mean of the aligned model and earlier checkpoints of its training (model soups, arXiv 2203.05482)."""
    checkpoints = list(task.checkpoints.values())
    aligned = dict(task.pair.aligned.model.named_parameters())

    def mean(count: int) -> Deltas:
        others = [dict(loaded.model.named_parameters()) for loaded in checkpoints[-count:]]
        found = {}
        for name, tensor in aligned.items():
            total = sum(other[name].detach().float() for other in others) + tensor.detach().float()
            delta = total / (count + 1) - tensor.detach().float()
            if bool(delta.any()):
                found[name] = delta
        return found

    for count in range(1, min(tries, len(checkpoints)) + 1):
        label = f"with {count} earlier checkpoint" + ("s" if count > 1 else "")
        yield weight_edit(task.pair, "soup", label, partial(mean, count))


def dg_hard(task: EditTask, *, tries: int = 1, progress: Progress = SILENT) -> Iterator[Edit]:
    """Of every matrix's D keep the singular triples above the noise that its median singular value tells.

    Threshold = omega(beta) * median(s) / sqrt(mu(beta)), Gavish and Donoho for unknown noise, beta the ratio of the sides
    and mu the median of the Marchenko-Pastur law. On an update whose rank is below half of a side the median is rounding
    noise: nothing is taken away, and the row says so.

    References:
        DG-Hard, arXiv 2605.20296; Gavish and Donoho 2014.
    """
    taken = [0, 0]

    def kept(_name: str, d: torch.Tensor) -> torch.Tensor:
        if d.ndim != 2 or d.numel() < LEAST_ENTRIES or float(d.abs().max()) <= 1e-8:
            return d
        u, s, vh = torch.linalg.svd(d, full_matrices=False)
        above = s > hard_threshold(d.shape, s)
        taken[0] += int((~above & (s > 1e-6 * s[0])).sum())
        taken[1] += int((s > 1e-6 * s[0]).sum())
        return d if bool(above.all()) else (u[:, above] * s[above]) @ vh[above]

    _rewritten(task.pair, kept)
    share = taken[0] / max(1, taken[1])
    notes = () if share > 0.01 else ("the identity: the update's rank is below half of its matrices' sides",)
    yield _edit(task, "dg_hard", "", kept, notes=notes)


def hard_threshold(shape: tuple[int, ...] | torch.Size, s: torch.Tensor) -> float:
    """Singular values above this are signal, by the median of all of them."""
    beta = min(shape) / max(shape)
    return threshold_ratio(beta) * float(s.median() if len(s) % 2 else (s[len(s) // 2 - 1] + s[len(s) // 2]) / 2)


@lru_cache
def threshold_ratio(beta: float) -> float:
    """Optimal hard threshold over the median singular value, for a matrix of aspect `beta` in (0, 1].

    Example:
        >>> round(threshold_ratio(1.0), 3), round(threshold_ratio(0.25), 3)
        (2.858, 1.837)
    """
    omega = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta * beta + 14 * beta + 1)))
    return omega / math.sqrt(_median_of_law(beta))


def _median_of_law(beta: float, points: int = 20001) -> float:
    """Median of the Marchenko-Pastur law: with x = low + (high - low) sin^2 the density has no edge to miss."""
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    angle = np.linspace(0, math.pi / 2, points)
    x = low + (high - low) * np.sin(angle) ** 2
    density = np.sqrt(np.maximum((high - x) * (x - low), 0)) / (2 * math.pi * beta * np.maximum(x, 1e-300))
    weight = density * 2 * (high - low) * np.sin(angle) * np.cos(angle)
    if low == 0:
        weight[0] = (high / math.pi / beta) * 1.0  # the limit at x = 0: sin and the root cancel
    mass = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2 * np.diff(angle))])
    return float(np.interp(0.5, mass / mass[-1], x))


FRACTIONS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)


def top_k(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Of every matrix's D keep the largest singular triples, a share of the rank (arXiv 2606.07596); at least one."""
    for share in spread(FRACTIONS, tries):

        def kept(_name: str, d: torch.Tensor, share: float = share) -> torch.Tensor:
            if d.ndim != 2:
                return d
            u, s, vh = torch.linalg.svd(d, full_matrices=False)
            rank = int((s > 1e-6 * s[0]).sum())
            k = max(1, math.ceil(share * rank - 1e-9))
            return (u[:, :k] * s[:k]) @ vh[:k]

        yield _edit(task, "top_k", f"{share:g} of the rank", kept, free=1)


def ties_trim(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Keep the largest entries of D, a share of the whole model's: TIES with one task vector (arXiv 2306.01708)."""
    for share in spread((0.2, 0.1, 0.05, 0.5, 0.02, 0.01), tries):
        edges: list[float] = []

        def kept(_name: str, d: torch.Tensor, share: float = share, edges: list[float] = edges) -> torch.Tensor:
            if not edges:
                edges.append(_largest_edge(task.pair, share))
            return torch.where(d.abs() >= edges[0], d, torch.zeros_like(d))

        yield _edit(task, "ties_trim", f"{share:g} of the entries", kept, free=1)


def _largest_edge(pair: ModelPair, share: float) -> float:
    """|D| of the last entry kept, among the entries of all parameters; 0 where fewer changed."""
    sizes = [d.abs().flatten().numpy() for d in changes(pair).values()]
    count = int(share * sum(p.numel() for p in pair.aligned.model.parameters()))
    every = np.concatenate(sizes)
    return (
        0.0 if count >= len(every) or not count else float(np.partition(every, len(every) - count)[len(every) - count])
    )


def dare(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Drop entries of D at random with probability p and divide the rest by 1 - p (arXiv 2311.03099)."""
    for p in spread((0.5, 0.9, 0.7, 0.3, 0.95), tries):
        yield _edit(task, "dare", f"p = {p:g}", _dropping(task.seed, p, rescale=True), free=1)


def drop(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Drop entries of D at random with probability p and leave the rest as it is: DARE without its division."""
    for p in spread((0.1, 0.3, 0.5, 0.2, 0.7, 0.9), tries):
        yield _edit(task, "drop", f"p = {p:g}", _dropping(task.seed, p, rescale=False), free=1)


def _dropping(seed: int, p: float, *, rescale: bool) -> Callable[[str, torch.Tensor], torch.Tensor]:
    def kept(name: str, d: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed + sum(name.encode()) * 1009)
        mask = torch.rand(d.shape, generator=generator) >= p
        return d * mask / (1 - p) if rescale else d * mask

    return kept


def breadcrumbs(task: EditTask, *, tries: int = 3, progress: Progress = SILENT) -> Iterator[Edit]:
    """Drop the largest hundredth and the smallest entries of every matrix's D (model breadcrumbs, arXiv 2312.06795)."""
    for share in spread((0.9, 0.5, 0.2, 0.7, 0.1), tries):

        def kept(_name: str, d: torch.Tensor, share: float = share) -> torch.Tensor:
            size = d.abs().flatten()
            order = size.argsort()
            mask = torch.zeros(len(size), dtype=torch.bool)
            first, last = int((0.99 - share) * len(size)), int(0.99 * len(size))
            mask[order[max(0, first) : last]] = True
            return d * mask.view_as(d)

        yield _edit(task, "breadcrumbs", f"{share:g} of the entries", kept, free=1)


DATA_FREE: Mapping[str, Any] = {
    "interpolation": interpolation, "extrapolation": extrapolation, "soup": soup, "dg_hard": dg_hard, "top_k": top_k,
    "ties_trim": ties_trim, "dare": dare, "drop": drop, "breadcrumbs": breadcrumbs,
}  # fmt: skip
"""Editors of this module by name."""
