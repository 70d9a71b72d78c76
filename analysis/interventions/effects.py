"""Effects of named units, item by item, and the rows they give attribution.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.effect_tables import ATTRIBUTION, ATTRIBUTION_ITEMS
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval, sum_intervals
from taxlens.core.stats.rounding import around_zero, share_of

APART = "prompt and config"
"""Row of attribution.csv for what of a tax is no effect of weights: other prompts, other configs."""

APART_KIND = "prompt"
"""Kind of that row."""


@dataclass(frozen=True, slots=True, eq=False)
class UnitEffects(Result):
    """What an intervention at each unit explains of the tax, by suite, metric and item; positive is loss.

    Args:
        method: "graft", "restore", "shapley", "patch_cause" or "patch_carrier".
        level: "component", "head", "neuron" or "singular".
        template: prompt template of the scores.
        units: unit names.
        layers: block index of each unit, -1 outside the blocks.
        kinds: "attn", "mlp", "norm", "embed" or "unembed" of each unit.
        values: (suite, metric) -> effects, float64 [items, units].
        taxes: (suite, metric) -> loss from base to aligned, both as they are asked, float64 [items].
        groups: suite -> group of each item.
        errors: (suite, metric) -> standard error of each unit's mean effect where units were sampled.
        forwards: models scored.
        draws: draws of the group bootstrap.
        seed: its seed.
        apart: (suite, metric) -> what of that loss the models' different prompts make, float64 [items]; no entry
            where both are asked the same.
    """

    figure: ClassVar[str] = "methods"

    method: str
    level: str
    template: str
    units: tuple[str, ...]
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    values: Mapping[tuple[str, str], np.ndarray]
    taxes: Mapping[tuple[str, str], np.ndarray]
    groups: Mapping[str, np.ndarray]
    errors: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    forwards: int = 0
    draws: int = 2000
    seed: int = 0
    apart: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def total(self, suite: str, metric: str) -> float:
        """Sum of the units' mean effects; equal to the tax only for methods that close."""
        return float(self._of(suite, metric).mean(axis=0).sum())

    def mean(self, suite: str, metric: str) -> np.ndarray:
        """Mean effect of each unit, float64 [units]."""
        return self._of(suite, metric).mean(axis=0)

    def closure(self, suite: str, metric: str) -> float:
        """Sum of effects over the measured tax; NaN where the tax is rounding."""
        tax = float(self.taxes[suite, metric].mean())
        return float(share_of(self.total(suite, metric), tax))

    def to_frame(self) -> pd.DataFrame:
        """Rows of attribution.csv; `quadrature_error` is the sampling standard error, 0 where nothing is sampled."""
        frames = []
        for (suite, metric), values in self.values.items():
            tax, effect = float(self.taxes[suite, metric].mean()), values.mean(axis=0)
            low, high = sum_intervals(values, self.groups[suite], draws=self.draws, seed=self.seed)
            low, high = around_zero(effect, low, high)
            frame = pd.DataFrame({"component": self.units, "layer": self.layers, "kind": self.kinds})
            frame = frame.assign(suite=suite, template=self.template, metric=metric, level=self.level)
            error = self.errors.get((suite, metric), np.zeros(len(self.units)))
            share = share_of(effect, tax)
            frame = frame.assign(method=self.method, effect=effect, low=low, high=high, quadrature_error=error)
            frames.append(frame.assign(share=share)[list(ATTRIBUTION.required)])
        return pd.concat(frames, ignore_index=True)

    def items_frame(self, *, items: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        """Rows of attribution_items.csv, given each suite's item ids."""
        frames = []
        for (suite, metric), values in self.values.items():
            frame = pd.DataFrame(values, columns=list(self.units)).assign(item=list(items[suite]))
            frame = frame.melt(id_vars="item", var_name="component", value_name="effect")
            frame = frame.assign(suite=suite, template=self.template, metric=metric, method=self.method)
            frames.append(frame.assign(level=self.level)[list(ATTRIBUTION_ITEMS.names)])
        return pd.concat(frames, ignore_index=True)

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return the closure, which the figure draws beside the effects."""
        return {"closure": self.closure_frame()}

    def closure_frame(self) -> pd.DataFrame:
        """Rows of closure.csv for this method (no gradients)."""
        rows = []
        for (suite, metric), tax in self.taxes.items():
            whole, attributed = float(tax.mean()), self.total(suite, metric)
            apart = float(self.apart[suite, metric].mean()) if (suite, metric) in self.apart else 0.0
            residual = whole - apart - attributed
            rows.append({
                "suite": suite, "template": self.template, "metric": metric, "method": self.method,
                "tax": whole, "attributed": attributed, "prompt_and_config": apart, "residual": residual,
                "residual_share": float(share_of(residual, whole)),
                "gradients": 0, "forwards": self.forwards,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        (suite, metric), values = next(iter(self.values.items()))
        effect = values.mean(axis=0)
        top = int(np.argmax(np.abs(effect)))
        interval = mean_interval(values[:, top], self.groups[suite], draws=self.draws, seed=self.seed)
        return (
            f"{self.method}: {self.units[top]} {effect[top]:+.4g} [{interval.low:.4g}, {interval.high:.4g}] of a "
            f"{metric} tax of {self.taxes[suite, metric].mean():.4g} on {suite}, n={len(values)} items in "
            f"{len(set(self.groups[suite]))} groups, {len(self.units)} units"
        )

    def _of(self, suite: str, metric: str) -> np.ndarray:
        if (suite, metric) not in self.values:
            rows = [("has", ", ".join(f"{s} {m}" for s, m in self.values))]
            raise UsageError(explain(f"no effects of {metric!r} on suite {suite!r}.", rows))
        return self.values[suite, metric]
