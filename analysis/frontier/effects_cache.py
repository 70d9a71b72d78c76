"""Effects of a unit level on training items, kept in a folder so that a killed frontier need not attribute again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import StoreError, understood
from taxlens.core.plain_files import read_arrays, write_arrays

if TYPE_CHECKING:
    from taxlens.analysis.path.attribution import Attribution


@dataclass(frozen=True, slots=True, eq=False)
class KeptSuite:
    """What plans need of one suite's attribution; fields as in `attribution.SuiteEffects`."""

    items: tuple[str, ...]
    groups: np.ndarray
    units: Mapping[str, tuple[str, ...]]
    values: Mapping[tuple[str, str], np.ndarray]
    taxes: Mapping[str, np.ndarray]

    def by_weights(self, metric: str) -> np.ndarray:
        """The tax of each item in the prompt that plans are measured in."""
        return self.taxes[metric]


@dataclass(frozen=True, slots=True, eq=False)
class KeptEffects:
    """Suites by name, as an attribution has them."""

    suites: Mapping[str, KeptSuite]


def kept_or_new(
    folder: Path | None, key: Sequence[object], level: str, attribute: Callable[[], Attribution]
) -> KeptEffects | Attribution:
    """The effects stored under the key, or those that `attribute` gives now, stored.

    Args:
        folder: where to keep them; None keeps nothing.
        key: whatever the effects depend on.
        level: the unit level that is kept.
        attribute: makes the attribution.
    """
    if folder is None:
        return attribute()
    path = folder / f"effects-{sha256_text(repr(list(key)))[:24]}.npz"
    if path.exists():
        return _read(path, level)
    found = attribute()
    arrays: dict[str, np.ndarray] = {}
    for name, suite in found.suites.items():
        arrays[f"{name}\titems"] = np.array(suite.items, dtype=str)
        arrays[f"{name}\tgroups"] = np.array(suite.groups, dtype=str)
        arrays[f"{name}\tunits"] = np.array(suite.units[level], dtype=str)
        for metric in suite.taxes:
            arrays[f"{name}\ttax\t{metric}"] = suite.by_weights(metric)
            arrays[f"{name}\teffects\t{metric}"] = suite.values[metric, level]
    write_arrays(path, arrays)
    return found


def _read(path: Path, level: str) -> KeptEffects:
    title = "kept effects cannot be read."
    arrays = read_arrays(path, title=title, ours=True)
    with understood(title, file=path, fix="delete it: it will be made again.", error=StoreError):
        return KeptEffects(_suites(arrays, level))


def _suites(arrays: Mapping[str, np.ndarray], level: str) -> dict[str, KeptSuite]:
    suites = {}
    for name in dict.fromkeys(key.split("\t")[0] for key in arrays):
        mine = {key.partition("\t")[2]: value for key, value in arrays.items() if key.split("\t")[0] == name}
        metrics = [key.partition("\t")[2] for key in mine if key.startswith("tax\t")]
        suites[name] = KeptSuite(
            items=tuple(mine["items"].tolist()),
            groups=mine["groups"].astype(object),
            units={level: tuple(mine["units"].tolist())},
            values={(metric, level): mine[f"effects\t{metric}"] for metric in metrics},
            taxes={metric: mine[f"tax\t{metric}"] for metric in metrics},
        )
    return suites
