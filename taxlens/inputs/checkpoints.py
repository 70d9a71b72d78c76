"""Checkpoints between base and aligned, and further seeds of one recipe: what a list of `aligned` or `adapter` means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.core.errors import ConfigError, explain
from taxlens.inputs.resolve import resolve_adapter, resolve_model

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

Names = str | Path | Sequence[str | Path] | None
"""One checkpoint or several, the last of which is the aligned one."""


def load_chain(
    base: str | Path, aligned: Names = None, *, adapter: Names = None, root: str | Path = ".", **options: Any
) -> tuple[ModelPair, tuple[LoadedModel, ...]]:
    """Return the pair of base and the last checkpoint, and the checkpoints that were named before it, in order.

    Args:
        base: a directory, a hub id or `demo:NAME`.
        aligned: one of these, or several; or leave it out and give `adapter`.
        adapter: a PEFT adapter on top of base, or several (each on top of base).
        root: the folder that relative paths start from.
        options: as for `activations.pair.load_pair`.

    Raises:
        ConfigError: several of both, or an empty list.
        ModelLoadError: a checkpoint is missing, unreadable or refused.
        PairMismatchError: a checkpoint cannot be compared with the base.
    """
    from taxlens.activations.models.pair import load_pair

    models, adapters = _several(aligned), _several(adapter)
    if [] in (models, adapters) or min(len(models or ()), len(adapters or ())) > 1:
        rows = [("aligned", aligned), ("adapter", adapter)]
        raise ConfigError(explain("a chain is a list of aligned or a list of adapters.", rows, "give one list."))
    steps = max(len(models or ()), len(adapters or ()), 1)
    pairs = [
        load_pair(
            resolve_model(str(base), root),
            None if models is None else resolve_model(models[min(n, len(models) - 1)], root),
            adapter=None if adapters is None else resolve_adapter(adapters[min(n, len(adapters) - 1)], root),
            **options,
        )
        for n in range(steps)
    ]
    return pairs[-1], tuple(pair.aligned for pair in pairs[:-1])


def _several(names: Names) -> list[str] | None:
    if names is None:
        return None
    return [str(names)] if isinstance(names, str | Path) else [str(name) for name in names]
