"""The one home of weights between two checkpoints: undo named parts of the change, in place, and restore exactly.

`mixture` hands back the aligned model with a share of its difference from the base removed, unit by unit;
`grafted` hands back the base with a share added. Both edit the loaded weights in place for the length of a
`with` block, so that a model is held once, and put every changed tensor back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.analysis.weights.units import ORIGINALS, Difference, Part, common_rows, difference_of, level_of
from taxlens.analysis.weights.weight_edits import puts_back
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

_OPEN: set[int] = set()
"""Models that a mixture holds at this moment, by identity."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """What one parameter loses or gains: whole, by slices, and by singular triples."""

    module: str
    parameter: str
    parts: tuple[tuple[Part, float], ...]

    @property
    def whole(self) -> float | None:
        """The coefficient, where the edit is one part that owns all of the parameter."""
        if len(self.parts) != 1:
            return None
        part, coefficient = self.parts[0]
        sliced = part.rows is not None or part.columns is not None or part.triple is not None or part.rest
        return None if sliced else coefficient


@contextmanager
def mixture(
    pair: ModelPair, undo: Mapping[str, float], *, difference: Difference | None = None, level: str | None = None
) -> Iterator[Any]:
    """Yield the aligned model with a share of the named units' change removed; restore it exactly on leaving.

    The weights in the block are `aligned - sum over units of coefficient * change of the unit`: coefficient 1
    gives the unit the base's weights, 0 leaves it, 0.5 is half way. Units may be of any level (component, head,
    neuron, singular) and mixed, as long as they do not overlap: overlapping units subtract twice. "L.attn.rest"
    is of the level of the other names. Tied input
    and output embeddings are separated for the block if only one of the two is named.

    The edit is in place, on `pair.aligned.model`: do not keep the yielded model, and do not nest two mixtures
    of one model.

    Args:
        pair: the two checkpoints.
        undo: unit name to coefficient, names as in attribution.csv ("3.mlp", "3.attn.h2", "3.mlp.down.s0").
        difference: the pair's weight difference, if it is at hand (its singular triples are cached there).
        level: the level of units named "rest", where no other name says it.

    Yields:
        The Hugging Face model of `pair.aligned`, changed.

    Raises:
        UsageError: a unit that the pair does not have, a coefficient that is not finite, a mixture inside another.

    Example:
        >>> import numpy as np                                                           # doctest: +SKIP
        >>> with mixture(pair, {"2.mlp": 1.0, "3.attn.h0": 0.5}) as model:               # doctest: +SKIP
        ...     logits = model(ids).logits
    """
    difference = difference or difference_of(pair)
    with _edited(pair.aligned.model, pair.base.model, difference, undo, sign=-1.0, level=level) as model:
        yield model


@contextmanager
def grafted(
    pair: ModelPair, add: Mapping[str, float], *, difference: Difference | None = None, level: str | None = None
) -> Iterator[Any]:
    """Yield the base model with a share of the named units' change added; restore it exactly on leaving.

    The mirror of `mixture`: weights are `base + sum over units of coefficient * change of the unit`.

    Args:
        pair: the two checkpoints.
        add: unit name to coefficient.
        difference: the pair's weight difference, if it is at hand.
        level: the level of units named "rest", where no other name says it.

    Yields:
        The Hugging Face model of `pair.base`, changed.

    Raises:
        UsageError: as `mixture`.
    """
    difference = difference or difference_of(pair)
    with _edited(pair.base.model, pair.aligned.model, difference, add, sign=1.0, level=level) as model:
        yield model


@contextmanager
def _edited(
    model: Any, other: Any, difference: Difference, coefficients: Mapping[str, float], *, sign: float, level: str | None
) -> Iterator[Any]:
    edits = _edits(difference, coefficients, level)
    if id(model) in _OPEN:
        raise UsageError(explain("a mixture of this model is open already.", (), "leave the outer `with` block first."))
    _OPEN.add(id(model))
    saved: list[tuple[Any, str, torch.nn.Parameter, torch.Tensor | None]] = []
    with puts_back(model):
        try:
            with torch.no_grad():
                for edit in edits:
                    saved.append(_apply(model, other, difference, edit, sign))
            yield model
        finally:
            with torch.no_grad():
                for module, name, parameter, kept in reversed(saved):
                    ORIGINALS.pop((id(module), name), None)
                    if kept is None:
                        setattr(module, name, parameter)
                    else:
                        parameter.copy_(kept)
            _OPEN.discard(id(model))


def _edits(difference: Difference, coefficients: Mapping[str, float], level: str | None) -> list[_Edit]:
    grouped: dict[tuple[str, str], list[tuple[Part, float]]] = {}
    level = level or level_of(coefficients)
    for name, coefficient in coefficients.items():
        if not np.isfinite(coefficient):
            rows = [("unit", name), ("coefficient", coefficient)]
            raise UsageError(
                explain("a coefficient must be a finite number.", rows, "0 keeps the change, 1 undoes it.")
            )
        if coefficient == 0:
            continue
        for part in difference.unit(name, level=level if name.endswith(".rest") else None).parts:
            grouped.setdefault((part.module, part.parameter), []).append((part, float(coefficient)))
    return [_Edit(module, parameter, tuple(parts)) for (module, parameter), parts in grouped.items()]


def _apply(
    model: Any, other: Any, difference: Difference, edit: _Edit, sign: float
) -> tuple[Any, str, torch.nn.Parameter, torch.Tensor | None]:
    module = model.get_submodule(edit.module)
    parameter = getattr(module, edit.parameter)
    uses = [name for name, p in model.named_parameters(remove_duplicate=False) if p is parameter]
    if len(uses) > 1:
        setattr(module, edit.parameter, torch.nn.Parameter(parameter.detach().clone(), requires_grad=False))
        undo = (module, edit.parameter, parameter, None)
        parameter = getattr(module, edit.parameter)
    else:
        undo = (module, edit.parameter, parameter, parameter.detach().clone())
    change = None if edit.whole == 1.0 else _change(difference, edit)
    ORIGINALS[id(module), edit.parameter] = undo[2] if undo[3] is None else undo[3]
    if change is None:
        mine, theirs = common_rows(parameter, getattr(other.get_submodule(edit.module), edit.parameter))
        mine.copy_(theirs)
        return undo
    stored = change if not difference.transposed(edit.module) or change.ndim == 1 else change.T
    wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    mine = common_rows(parameter, stored)[0]
    mine.copy_((mine.to(wide) + sign * stored.to(device=parameter.device, dtype=wide)).to(parameter.dtype))
    return undo


def _change(difference: Difference, edit: _Edit) -> torch.Tensor:
    """The sum of coefficient * change over the edit's parts, in the [out, in] orientation."""
    triples = [(part.triple, a) for part, a in edit.parts if part.triple is not None]
    slices = [(part, a) for part, a in edit.parts if part.triple is None]
    total = None
    if triples:
        u, s, vh = difference.triples(edit.module)
        index = torch.as_tensor([k for k, _ in triples], device=s.device)
        weights = s[index] * torch.as_tensor([a for _, a in triples], dtype=s.dtype, device=s.device)
        total = (u[:, index] * weights) @ vh[index]
    if slices:
        full = difference.change(edit.module, edit.parameter)
        total = torch.zeros_like(full) if total is None else total
        for part, a in slices:
            if part.rest:
                total += a * difference.rest_of(edit.module)
            elif part.rows is None and part.columns is None:
                total += a * full
            elif part.columns is None:
                total[part.rows] += a * full[part.rows]
            elif part.rows is None:
                total[:, part.columns] += a * full[:, part.columns]
            else:
                block = np.ix_(part.rows, part.columns)
                total[block] += a * full[block]
    if total is None:
        raise UsageError(explain("an edit names nothing.", [("module", edit.module)]))
    return total
