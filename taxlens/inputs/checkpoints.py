"""Checkpoints between base and aligned, and further seeds of one recipe: what a list of `aligned` or `adapter` means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.core.errors import ConfigError, explain
from taxlens.inputs.resolve import resolve_model

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

Names = Any
"""One checkpoint (a directory, a hub id, `demo:NAME`, a model in memory) or several, the last of which is the aligned one."""


def load_chain(
    base: Any, aligned: Names = None, *, adapter: Names = None, root: str | Path = ".", **options: Any
) -> tuple[ModelPair, tuple[LoadedModel, ...]]:
    """Return the pair of base and the last checkpoint, and the checkpoints that were named before it, in order.

    Args:
        base: a directory, a hub id, `demo:NAME`, or a model in memory (with `tokenizer` among the options). It is
            loaded once.
        aligned: one of these, or several; or leave it out and give `adapter`.
        adapter: a PEFT adapter on top of base, or several (each on top of base).
        root: the folder that relative paths start from.
        options: as for `activations.pair.load_pair`.

    Raises:
        ConfigError: several of both, or an empty list.
        ModelLoadError: a checkpoint is missing, unreadable or refused.
        PairMismatchError: a checkpoint cannot be compared with the base.
    """
    from taxlens.activations.models.pair import load_pairs

    models, adapters = _several(aligned), _several(adapter)
    if [] in (models, adapters) or min(len(models or ()), len(adapters or ())) > 1:
        rows = [("aligned", aligned), ("adapter", adapter)]
        raise ConfigError(explain("a chain is a list of aligned or a list of adapters.", rows, "give one list."))
    steps = max(len(models or ()), len(adapters or ()), 1)
    every = [
        [None if given is None else _resolved(given[min(n, len(given) - 1)], root) for n in range(steps)]
        for given in (models, adapters)
    ]
    pairs = load_pairs(_resolved(base, root), *every, **options)
    return pairs[-1], tuple(pair.aligned for pair in pairs[:-1])


def _several(names: Names) -> list[Any] | None:
    if names is None:
        return None
    return list(names) if isinstance(names, list | tuple) else [names]


def _resolved(given: Any, root: str | Path) -> Any:
    """A name's directory or hub id; a model in memory as it is."""
    return resolve_model(str(given), root) if isinstance(given, str | Path) else given


def short_names(sources: list[str]) -> list[str]:
    """Return the last part of each source's path, as far as these tell the sources apart; else a number before it."""
    names = [Path(source).name or source for source in sources]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names, start=1)]
