"""Whether a model's weights were edited in place since they were last looked at, and who puts back what it edits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

Stamp = tuple[tuple[int, int], ...]

_SEEN: WeakKeyDictionary[nn.Module, tuple[int, Stamp]] = WeakKeyDictionary()
"""The generation of each model's weights, and the stamp that they had then."""
_EDITED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Models that a block edits at this moment and will put back, and how many blocks do."""


def generation(model: nn.Module) -> int:
    """The number of a model's weights: another one after they were edited in place, the same inside `puts_back`.

    Seen by where parameters lie and by torch's count of writes to each. A write through `.data` is not counted by torch
    and is not seen.
    """
    number, before = _SEEN.get(model, (0, None))
    if model in _EDITED:
        return number
    now = _stamp(model)
    if now != before:
        number += before is not None
        _SEEN[model] = number, now
    return number


def generations(pair: ModelPair) -> tuple[int, int]:
    """The numbers of both models' weights, base and aligned."""
    return generation(pair.base.model), generation(pair.aligned.model)


@contextmanager
def puts_back(model: nn.Module) -> Iterator[None]:
    """Say that the block edits a model's weights in place and puts every one back: their generation stays."""
    number = generation(model)
    _EDITED[model] = _EDITED.get(model, 0) + 1
    try:
        yield
    finally:
        _EDITED[model] -= 1
        if not _EDITED[model]:
            del _EDITED[model]
            _SEEN[model] = number, _stamp(model)


def _stamp(model: nn.Module) -> Stamp:
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters())
