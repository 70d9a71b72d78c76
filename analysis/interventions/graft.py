"""Single grafts and restores: one unit at a time, from both ends of the pair, with controls of equal size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.effects import UnitEffects
from taxlens.analysis.scoring.evaluator import MeasureFunction, Values, losses
from taxlens.analysis.weights.interpolation import grafted, mixture
from taxlens.analysis.weights.units import Difference, difference_of
from taxlens.core.errors import SelfCheckError, explain
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair


@dataclass(frozen=True, slots=True, eq=False)
class Grafts:
    """Grafts and restores of the same units, side by side.

    Neither closes: where units interact, grafting one onto the base and restoring one in the aligned model
    differ, and either may sum to several times the tax or to none of it.
    """

    graft: UnitEffects
    restore: UnitEffects

    def normalised(self, suite: str, metric: str) -> np.ndarray:
        """The mean of the two, scaled to sum to the tax: a cheap stand-in for Shapley, float64 [units]."""
        mean = (self.restore.mean(suite, metric) + self.graft.mean(suite, metric)) / 2
        total = mean.sum()
        return mean * (float(self.graft.taxes[suite, metric].mean()) / total) if total else mean

    def to_frame(self) -> pd.DataFrame:
        """Rows of attribution.csv, methods `graft` and `restore`."""
        return pd.concat([self.graft.to_frame(), self.restore.to_frame()], ignore_index=True)


def graft_effects(
    pair: ModelPair,
    measure: MeasureFunction,
    *,
    groups: Mapping[str, np.ndarray],
    level: str = "component",
    units: Sequence[str] | None = None,
    template: str = "plain",
    difference: Difference | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Grafts:
    """Graft and restore each unit alone, and say what the tax changed by.

    graft(u) = loss from the base to the base with u's change; restore(u) = loss from the aligned model without
    u's change to the aligned model. Two models are scored per unit, and the two ends once. A unit that did not
    change gets exactly 0 without being scored. Afterwards both ends must score as before, to the last bit.

    Args:
        pair: the two checkpoints.
        measure: what scores a model (`measure.ChoiceMeasure`).
        groups: suite name to the group of each item.
        level: level of the units.
        units: names; by default every unit of the level.
        template: the template that `measure` scores in, for the tables.
        difference: the pair's weight difference, if it is at hand.
        draws: group-bootstrap draws of the intervals.
        seed: its seed.
        progress: told of each unit.

    Returns:
        Both methods' effects, by item.

    Raises:
        UsageError: a unit that the pair does not have.
        SelfCheckError: the models did not come back as they were.

    References:
        Weight patching between a base and a specialised model: arXiv 2604.13694.
    """
    found = _swapped(
        pair, measure, ("graft", "restore"), groups=groups, level=level, units=units, template=template,
        difference=difference, draws=draws, seed=seed, progress=progress,
    )  # fmt: skip
    return Grafts(found["graft"], found["restore"])


def restore_effects(
    pair: ModelPair, measure: MeasureFunction, *, groups: Mapping[str, np.ndarray], **options: Any
) -> UnitEffects:
    """The second half of `graft_effects` alone, at half its cost: what each unit's restoration returns.

    Args:
        pair, measure, groups: as for `graft_effects`.
        options: its other arguments.
    """
    return _swapped(pair, measure, ("restore",), groups=groups, **options)["restore"]


def _swapped(
    pair: ModelPair, measure: MeasureFunction, methods: Sequence[str], *, groups: Mapping[str, np.ndarray],
    level: str = "component", units: Sequence[str] | None = None, template: str = "plain",
    difference: Difference | None = None, draws: int = 2000, seed: int = 0, progress: Progress = SILENT,
) -> dict[str, UnitEffects]:  # fmt: skip
    """Effects of swapping each unit alone, by method: onto the base ("graft"), out of the aligned model ("restore")."""
    difference = difference or difference_of(pair)
    names = tuple(units if units is not None else difference.units(level))
    parts = [difference.unit(n, level=level) for n in names]
    base, aligned = measure(pair.base.model), measure(pair.aligned.model)
    taxes = losses(aligned, base)
    changed = [difference.moved(unit) for unit in parts]
    edits = {"graft": (partial(grafted, level=level), base), "restore": (partial(mixture, level=level), aligned)}
    found: dict[str, list[dict[tuple[str, str], np.ndarray] | None]] = {method: [] for method in methods}
    with progress.task(" and ".join(methods), total=len(names), unit="units") as task:
        for name, moved in zip(names, changed, strict=True):
            for method in methods:
                edit, end = edits[method]
                found[method].append(_one(edit, pair, name, difference, measure, end, method) if moved else None)
            task.advance(1, note=name)
    for values, again in ((base, measure(pair.base.model)), (aligned, measure(pair.aligned.model))):
        check_unchanged(values, again, limit=rounding_of(pair))
    shared: dict[str, Any] = {
        "level": level, "template": template, "units": names, "layers": tuple(u.layer for u in parts),
        "kinds": tuple(u.kind for u in parts), "taxes": taxes, "groups": groups, "draws": draws, "seed": seed,
        "forwards": sum(changed) + 2,
    }  # fmt: skip
    return {method: UnitEffects(method=method, values=_columns(found[method], taxes), **shared) for method in methods}


def rounding_of(pair: ModelPair) -> float:
    """By how much two scorings of one model may differ: nothing on a CPU; a GPU may choose another kernel."""
    devices = {p.device.type for model in (pair.base, pair.aligned) for p in model.model.parameters()}
    return 0.0 if devices == {"cpu"} else 1e-5


def check_unchanged(before: Values, after: Values, *, limit: float = 0.0) -> None:
    """Raise unless two scorings of one model agree: what an intervention leaves must be nothing.

    Args:
        before, after: values by suite and metric.
        limit: largest difference that is rounding (see `rounding_of`).

    Raises:
        SelfCheckError: naming suite, metric and the largest difference.
    """
    for suite, metrics in before.items():
        for metric, value in metrics.items():
            apart = float(np.max(np.abs(value - after[suite][metric]), initial=0.0))
            if not apart <= limit:  # NaN too
                rows = [("suite", suite), ("metric", metric), ("largest difference", apart)]
                raise SelfCheckError(explain("a model scores differently after an intervention.", rows))


def _one(
    edit: Callable[..., AbstractContextManager[Any]],
    pair: ModelPair,
    name: str,
    difference: Difference,
    measure: MeasureFunction,
    end: Values,
    method: str,
) -> dict[tuple[str, str], np.ndarray]:
    with edit(pair, {name: 1.0}, difference=difference) as model:
        mixed = measure(model)
    return losses(mixed, end) if method == "graft" else losses(end, mixed)


def _columns(
    found: list[dict[tuple[str, str], np.ndarray] | None], taxes: Mapping[tuple[str, str], np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    return {
        key: np.column_stack([np.zeros_like(tax) if one is None else one[key] for one in found])
        for key, tax in taxes.items()
    }
