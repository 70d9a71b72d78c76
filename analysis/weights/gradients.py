"""Gradients of a suite's mean metric by the weights, and what they say each unit does to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.items.batches import Piece, packed, pad
from taxlens.activations.items.gold import check_one_right
from taxlens.activations.items.out_of_memory import until_it_fits
from taxlens.activations.models.lengths import length_class, network
from taxlens.activations.models.prompts import Prompting
from taxlens.analysis.scoring.logits import head_logits
from taxlens.analysis.scoring.metrics import metric_of, smooth_metrics
from taxlens.analysis.weights.units import common_rows
from taxlens.core.errors import one_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taxlens.activations.items.items import Suite
    from taxlens.activations.items.tokens import Row
    from taxlens.analysis.weights.units import Difference, Part, Unit

Slopes = Mapping[tuple[str, str], torch.Tensor]
"""(module, parameter) -> gradient, in the shape that the checkpoint stores."""


def weight_slopes(
    model: Any,
    suite: Suite,
    prompting: Prompting,
    *,
    modules: Sequence[str],
    metric: str = "probability",
    batch_tokens: int = 2048,
) -> tuple[dict[tuple[str, str], torch.Tensor], float]:
    """Gradient of the suite's mean metric by every weight of the named modules, at the model's present weights.

    One forward and backward pass over all choices of all items. Where two modules share a weight (tied
    embeddings), each use has its own gradient.

    Args:
        model: a Hugging Face causal language model.
        suite: items with choices.
        prompting: how the model is asked.
        modules: dotted names of modules whose weights count.
        metric: "probability", "margin" or "nll".
        batch_tokens: padded tokens in a batch; all choices of an item stay in one batch.

    Returns:
        Gradients by (module, parameter), and the mean metric.
    """
    one_of(metric, smooth_metrics(), what="smooth metric")
    hf = network(model)
    rows = prompting.rows(suite)
    items = {row.item for row in rows}
    batches = [item_batches(hf, rows, batch_tokens)]

    def smaller() -> bool:
        several = len(batches[0]) < len(items)  # a batch holds whole items
        largest = max(len(batch) * max(len(row.ids) for row in batch) for batch in batches[0])
        batches[0] = item_batches(hf, rows, largest // 2)
        return several

    with _requiring(hf, modules) as wanted:

        def summed() -> tuple[dict[tuple[str, str], torch.Tensor], float]:
            total, sums = 0.0, {}
            for p in wanted.values():  # of a pass that ran out of memory half-way
                p.grad = None
            for batch in batches[0]:
                scores = choice_scores(hf, batch)
                value, slope = metric_slopes(batch, scores, suite, metric)
                scores.backward(slope / len(items))
                total += value / len(items)
                _widened(wanted, sums)
            return {key: sums[key] if key in sums else _taken(p) for key, p in wanted.items()}, total

        return until_it_fits(summed, smaller, what=f"gradient of {suite.name}")


def unit_slopes(slopes: Slopes, difference: Difference, units: Sequence[Unit]) -> np.ndarray:
    """What undoing nothing-but-a-little of each unit would do: <gradient, change of the unit>, float64 [units].

    The first-order change of the metric when the unit's change is added once more. For a metric where more is
    better, minus this is the loss that the gradient blames on the unit.
    """
    wanted: dict[tuple[str, str], list[tuple[int, Part]]] = {}
    for place, unit in enumerate(units):
        for part in unit.parts:
            wanted.setdefault((part.module, part.parameter), []).append((place, part))
    found = np.zeros(len(units))
    for (module, parameter), parts in wanted.items():  # each product once, however many units share the weight
        ranked = any(part.triple is not None or part.rest for _, part in parts)
        triples = _triple_slopes(slopes, difference, module) if ranked else np.zeros(0)
        sliced = any(part.triple is None for _, part in parts)
        product = _products(slopes, difference, module, parameter) if sliced else torch.zeros(0)
        for place, part in parts:
            if part.triple is not None:
                found[place] += triples[part.triple]
            else:
                found[place] += _slice_slope(product, part) - (triples.sum() if part.rest else 0.0)
    return found


def first_order_loss(
    model: Any,
    suites: Sequence[tuple[Suite, Prompting]],
    difference: Difference,
    units: Sequence[Unit],
    *,
    metric: str = "probability",
) -> dict[str, np.ndarray]:
    """Loss that one gradient at the model's weights blames on each unit, by suite, float64 [units].

    Args:
        model: the model, at the weights where the gradient is wanted.
        suites: each with how it is asked.
        difference, units: of the pair.
        metric: "probability", "margin" or "nll".

    At the aligned weights this is the one-gradient baseline (activated parameter locating, arXiv 2408.09485):
    cheap, and blind where the metric has saturated.
    """
    modules = list(dict.fromkeys(part.module for unit in units for part in unit.parts))
    found = {}
    for suite, prompting in suites:
        slopes, _ = weight_slopes(model, suite, prompting, modules=modules, metric=metric)
        found[suite.name] = -metric_of(metric).sign * unit_slopes(slopes, difference, units)
    return found


def choice_scores(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Log-probability of each row's choice with its gradient, float32 [rows]; the head sees asked positions only."""
    asked = torch.tensor([(b, p) for b, row in enumerate(rows) for p in range(row.start - 1, len(row.ids) - 1)])
    logits = head_logits(model, *pad(rows, 0), asked)
    targets = torch.tensor([token for row in rows for token in row.ids[row.start :]], device=logits.device)
    logp = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
    return torch.zeros(len(rows), dtype=logp.dtype, device=logp.device).index_add(0, asked[:, 0].to(logp.device), logp)


def metric_slopes(rows: Sequence[Row], scores: torch.Tensor, suite: Suite, metric: str) -> tuple[float, torch.Tensor]:
    """Return a metric summed over the rows' items, and its derivative by each row's score [rows].

    Args:
        rows: all choices of some items.
        scores: of each row, [rows].
        suite: the items.
        metric: one with a gradient.
    """
    check_one_right(suite)
    known, items = metric_of(metric), sorted({row.item for row in rows})
    place = {item: number for number, item in enumerate(items)}
    at = np.array([place[row.item] for row in rows]), np.array([row.choice for row in rows])
    table = np.full((len(items), int(at[1].max()) + 1), np.nan)
    table[at] = scores.detach().double().cpu().numpy()
    gold = np.array([suite.items[item].gold for item in items], dtype=np.int64)
    assert known.value is not None
    assert known.gradient is not None
    slope = np.nan_to_num(known.gradient(table, gold))[at]
    return float(known.value(table, gold).sum()), torch.as_tensor(slope).to(scores)


def item_batches(model: Any, rows: Sequence[Row], batch_tokens: int) -> list[list[Row]]:
    """Batches of rows within the padded-token budget, longest first, all choices of an item together."""
    of = length_class(model)
    by_item: dict[int, list[Row]] = {}
    for row in rows:
        by_item.setdefault(row.item, []).append(row)
    held = list(by_item.values())
    widths = [max(len(row.ids) for row in mine) for mine in held]
    pieces = [Piece(width, len(mine), kind=of(width)) for width, mine in zip(widths, held, strict=True)]
    return [[row for i in batch for row in held[i]] for batch in packed(pieces, batch_tokens=batch_tokens)]


def _widened(wanted: dict[tuple[str, str], torch.nn.Parameter], sums: dict[tuple[str, str], torch.Tensor]) -> None:
    """Move a batch's gradients of 16-bit weights into float32 sums: summed in 16 bits, later batches would be lost."""
    for key, p in wanted.items():
        if p.grad is not None and p.dtype in (torch.bfloat16, torch.float16):
            sums[key] = sums[key].add_(p.grad) if key in sums else p.grad.float()
            p.grad = None


def _taken(parameter: torch.Tensor) -> torch.Tensor:
    grad, parameter.grad = parameter.grad, None  # handed over, not copied
    return torch.zeros_like(parameter) if grad is None else grad.detach()


def _triple_slopes(slopes: Slopes, difference: Difference, module: str) -> np.ndarray:
    u, s, vh = difference.triples(module)
    slope = slopes[module, "weight"].to(u)
    slope = slope.T if difference.transposed(module) else slope
    slope = slope[: len(u)]
    return (torch.einsum("or,or->r", u, slope @ vh.T) * s).double().cpu().numpy()


def _products(slopes: Slopes, difference: Difference, module: str, parameter: str) -> torch.Tensor:
    """Gradient times change, weight by weight, [out, in] or [out], on the device of the module."""
    change = difference.change(module, parameter)
    slope = slopes[module, parameter].to(change)
    slope = slope.T if difference.transposed(module) and slope.ndim == 2 else slope
    return common_rows(slope, change)[0] * change


def _slice_slope(product: torch.Tensor, part: Part) -> float:
    product = product if part.rows is None else product[part.rows]
    product = product if part.columns is None else product[:, part.columns]
    return float(product.double().sum())


@contextmanager
def _requiring(model: Any, modules: Sequence[str]) -> Iterator[dict[tuple[str, str], torch.nn.Parameter]]:
    """Let gradients flow to the modules' parameters for the block, shared ones apart, and leave all as it was."""
    wanted: dict[tuple[str, str], torch.nn.Parameter] = {}
    shared: list[tuple[Any, str, torch.nn.Parameter]] = []
    uses: dict[int, int] = {}
    for _, p in model.named_parameters(remove_duplicate=False):
        uses[id(p)] = uses.get(id(p), 0) + 1
    for name in modules:
        module = model.get_submodule(name)
        for key, p in list(module.named_parameters(recurse=False)):
            if uses[id(p)] > 1:
                shared.append((module, key, p))
                setattr(module, key, torch.nn.Parameter(p.detach(), requires_grad=False))
            wanted[name, key] = getattr(module, key)
    before = {key: p.requires_grad for key, p in wanted.items()}
    try:
        for p in wanted.values():
            p.requires_grad_(True)
        with torch.enable_grad():
            yield wanted
    finally:
        for key, p in wanted.items():
            p.requires_grad_(before[key])
            p.grad = None
        for module, key, p in shared:
            setattr(module, key, p)
