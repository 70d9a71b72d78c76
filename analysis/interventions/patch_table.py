"""Patches side by side: cause, carrier and both, into either model, by component, head and position, with controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.effect_tables import PATCHES
from taxlens.analysis.interventions.graft import check_unchanged, rounding_of
from taxlens.analysis.interventions.patching import INTO, PARTS, every_part, patched_values
from taxlens.analysis.scoring.evaluator import ChoiceMeasure, Values, losses
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import SelfCheckError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.stats.intervals import sum_intervals
from taxlens.core.stats.rounding import around_zero, share_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair


@dataclass(frozen=True, slots=True)
class Patch:
    """One thing to patch: a block's part or a head, at all positions or some, and why (leading, random, untouched)."""

    component: str
    role: str
    position: str = ""
    positions: tuple[int, ...] | None = None

    @property
    def level(self) -> str:
        """Level of the component."""
        return "head" if ".h" in self.component else "component"


def patch_table(
    pair: ModelPair,
    suites: Sequence[Suite],
    patches: Sequence[Patch],
    *,
    template: str = "plain",
    metrics: Sequence[str] = ("probability", "nll"),
    parts: Sequence[str] = PARTS,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Return rows of patches.csv: the effect of every patch in both directions, positive is loss.

    Into the base a part is added, and the effect is the loss that this makes; into the aligned model it is taken
    away, and the effect is the loss that this takes back. A component whose weights did not change has no cause:
    its effect must be exactly 0, which is checked where such a component is among the patches, as is that both
    models score afterwards as before.

    Args:
        pair: the two checkpoints.
        suites: suites with choices, in one template.
        patches: what to patch.
        template: "plain" or "chat".
        metrics: metrics of the choices' scores.
        parts: of "cause" (its own weights), "carrier" (inherited from upstream) and "both" (activation patching).
        draws, seed: of the group bootstrap.
        progress: told of every patch.

    Raises:
        SelfCheckError: an untouched component was blamed, or a model did not come back as it was.
    """
    measure = ChoiceMeasure(pair, tuple(suites), template=template, metrics=tuple(metrics))
    ends = {"base": measure(pair.base.model), "aligned": measure(pair.aligned.model)}
    taxes = losses(ends["aligned"], ends["base"])
    rows: list[dict[str, object]] = []
    with progress.task("patch", total=len(patches) * len(INTO) * len(parts), unit="patches") as task:
        for patch in patches:
            for into in INTO:
                for part in parts:
                    effects = _effects(pair, measure, patch, part, into, ends)
                    _check_untouched(patch, part, effects)
                    shared = {"into": into, "part": part, "level": patch.level, "component": patch.component}
                    shared |= {"template": template, "position": patch.position, "role": patch.role}
                    for (suite, metric), lost in effects.items():
                        low, high = sum_intervals(lost[:, None], measure.groups[suite], draws=draws, seed=seed)
                        low, high = around_zero(lost.mean(), low, high)
                        tax, effect = float(taxes[suite, metric].mean()), float(lost.mean())
                        numbers = {"effect": effect, "low": float(low[0]), "high": float(high[0])}
                        share = float(share_of(effect, tax))
                        rows.append(shared | {"suite": suite, "metric": metric} | numbers | {"share": share})
                    task.advance(1, note=patch.component)
    for name, model in (("base", pair.base.model), ("aligned", pair.aligned.model)):
        check_unchanged(ends[name], measure(model), limit=rounding_of(pair))
    return PATCHES.frame(rows)


def chosen_patches(
    pair: ModelPair, table: pd.DataFrame, *, leading: int, positions: int = 0, seed: int = 0
) -> list[Patch]:
    """Return what to patch: leading components and heads, random ones of equal size, one untouched; by position.

    Args:
        pair: the two checkpoints.
        table: rows of attribution.csv by the path, at component level and perhaps at head level.
        leading: components, and heads, by the largest |share| over suites and metrics; as many random others of the
            same kind, which have the same number of parameters.
        positions: the leading component is also patched at each of the first positions, and at all later ones.
        seed: of the random ones.
    """
    difference, rng = difference_of(pair), np.random.default_rng(seed)
    blocks = every_part(pair.base.anatomy.n_layers)
    changed = [name for name in blocks if difference.moved(difference.unit(name, level="component"))]
    heads = [
        f"{layer}.attn.h{h}" for layer in range(pair.base.anatomy.n_layers) for h in range(pair.base.anatomy.n_heads)
    ]
    found: list[Patch] = []
    for level, names in (("component", changed), ("head", heads)):
        size = table[table["level"] == level].groupby("component")["share"].apply(lambda s: s.abs().max())
        ranked = [str(name) for name in size.sort_values(ascending=False, kind="stable").index if name in names]
        first = ranked[:leading]
        kinds = [name.split(".")[1] for name in first]
        others = list(rng.permutation(ranked[leading:]).tolist())
        random = [others.pop(place) for kind in kinds if (place := _of_kind(others, kind)) is not None]
        found += [Patch(name, "leading") for name in first] + [Patch(name, "random") for name in random]
        if level == "component" and first and positions:
            found += [Patch(first[0], "leading", str(p), (p,)) for p in range(positions)]
            found.append(Patch(first[0], "leading", f"{positions}-", tuple(range(positions, 4096))))
    untouched = [name for name in blocks if name not in changed]
    return [*found, Patch(str(rng.choice(untouched)), "untouched")] if untouched else found


def _of_kind(names: Sequence[str], kind: str) -> int | None:
    return next((place for place, name in enumerate(names) if name.split(".")[1] == kind), None)


def _effects(
    pair: ModelPair, measure: ChoiceMeasure, patch: Patch, part: str, into: str, ends: dict[str, Values]
) -> dict[tuple[str, str], np.ndarray]:
    patched = patched_values(pair, measure, patch.component, part=part, into=into, positions=patch.positions)
    return losses(patched, ends["base"]) if into == "base" else losses(ends["aligned"], patched)


def _check_untouched(patch: Patch, part: str, effects: dict[tuple[str, str], np.ndarray]) -> None:
    if patch.role != "untouched" or part != "cause":
        return
    for (suite, metric), lost in effects.items():
        if np.abs(lost).max(initial=0.0):
            rows = [
                ("component", patch.component),
                ("suite", suite),
                ("metric", metric),
                ("largest", np.abs(lost).max()),
            ]
            raise SelfCheckError(explain("a component whose weights did not change was blamed.", rows))
