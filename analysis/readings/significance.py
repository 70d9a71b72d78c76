"""Which effects are more than chance: sign consistency, joint sign-flip tests, and shuffled changes as a null."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from taxlens.activations.models.pair import make_pair
from taxlens.analysis.interventions.effects import APART_KIND
from taxlens.analysis.path.attribute import attribute
from taxlens.core.stats.intervals import group_index
from taxlens.core.stats.rounding import is_rounding

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.path.attribution import Attribution


def effect_tests(
    found: Attribution, suite: str, metric: str, *, level: str = "component", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Test each unit's mean effect against zero, jointly over all units of a level.

    Whole groups of items have the sign of all their effects flipped together, so that dependence within groups and
    between units is kept; the adjusted p compares each unit with the largest standardised effect of any unit in
    each draw (family-wise). The test is of the mean over a population of groups; a unit may matter to some items in
    either direction and have no mean.

    Args:
        found: an attribution.
        suite, metric, level: which of its effects.
        draws: sign flips.
        seed: of the draws.

    Returns:
        Columns component, effect, consistency (share of items, among those it affects, with the sign of the mean;
        1 is unanimous, about .5 is none), p, p_adjusted; both p are 1 where the mean effect is rounding.

    References:
        Westfall and Young 1993 (max-T).
    """
    names, values = found.effects(suite, metric, level)
    index, n_groups = group_index(found.suites[suite].groups)
    totals = np.zeros((n_groups, values.shape[1]))
    np.add.at(totals, index, values)
    spread = np.sqrt((totals**2).sum(axis=0))
    scale = np.where(spread > 0, spread, 1.0)
    flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n_groups))
    observed = np.abs(totals.sum(axis=0)) / scale
    drawn = np.abs(flips @ totals) / scale
    slack = observed * (1 - 1e-12)
    p = (1 + (drawn >= slack).sum(axis=0)) / (1 + draws)
    adjusted = (1 + (drawn.max(axis=1)[:, None] >= slack).sum(axis=0)) / (1 + draws)
    mean = values.mean(axis=0)
    affected = (values != 0).sum(axis=0)
    same = (np.sign(values) == np.sign(mean)).sum(axis=0)
    consistency = np.where((affected > 0) & (mean != 0), same / np.maximum(affected, 1), np.nan)
    still = (spread == 0) | is_rounding(mean)
    return pd.DataFrame(
        {
            "component": names,
            "effect": mean,
            "consistency": consistency,
            "p": np.where(still, 1.0, p),
            "p_adjusted": np.where(still, 1.0, adjusted),
        }
    )


def significance_frame(found: Attribution, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Sign consistency and sign-flip tests of every suite, metric and level that was attributed.

    Returns:
        Columns suite, metric, level, component, consistency, p, p_adjusted (see `effect_tests`); p_adjusted is
        over the units of one suite, metric and level.
    """
    frames = []
    for name, walked in found.walks():
        for metric, level in walked.values:
            table = effect_tests(found, name, metric, level=level, draws=draws, seed=seed).drop(columns="effect")
            frames.append(table.assign(suite=name, metric=metric, level=level))
    columns = ["suite", "metric", "level", "component", "consistency", "p", "p_adjusted"]
    return pd.concat(frames, ignore_index=True)[columns]


def null_effects(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    draws: int = 8,
    seed: int = 0,
    **options: Any,
) -> list[Attribution]:
    """Attribute pairs whose change is shuffled: equal spectrum of every weight's change, random directions.

    A unit whose effect does not exceed what a change of the same size in random directions does has no more than
    its size to show for it. Each draw costs a whole attribution.

    Args:
        pair: the two checkpoints; left as they are.
        suites: one suite or several.
        draws: shuffled pairs.
        seed: of the shuffles.
        options: as for `path.attribute`.

    Returns:
        One attribution a draw.
    """
    return [attribute(shuffled(pair, seed=seed + number), suites, **options) for number in range(draws)]


def null_frame(found: Attribution, nulls: Sequence[Attribution]) -> pd.DataFrame:
    """Rows of attribution.csv at component level, beside the size that shuffled changes reach.

    Returns:
        attribution.csv's rows with null_size (largest |effect| of the component over the draws), exceeds (share
        of draws that it exceeds) and null_draws.
    """
    table = found.to_frame()
    table = table[(table["level"] == "component") & (table["kind"] != APART_KIND)]
    keys = ["suite", "metric", "component"]
    sizes = pd.concat([n.to_frame().query("level == 'component'").assign(draw=i) for i, n in enumerate(nulls)])
    sizes = sizes.assign(size=sizes["effect"].abs())[[*keys, "draw", "size"]]
    joined = table.merge(sizes, on=keys)
    joined["over"] = joined["effect"].abs() > joined["size"]
    summary = joined.groupby(keys, sort=False).agg(null_size=("size", "max"), exceeds=("over", "mean")).reset_index()
    return table.merge(summary.assign(null_draws=len(nulls)), on=keys)


def shuffled(pair: ModelPair, *, seed: int = 0) -> ModelPair:
    """Return the pair with every weight's change replaced by one of equal singular values in random directions.

    Gains and biases have their changes' signs flipped at random. Memory: one more model.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(pair.aligned.model)
    base = dict(pair.base.model.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            change = (parameter - base[name]).double().cpu()
            if not change.any():
                continue
            turned = _turned(change, generator) if change.ndim == 2 else change * _signs(change.shape, generator)
            parameter.copy_(base[name] + turned.to(parameter))
    return make_pair(
        pair.base, dataclasses.replace(pair.aligned, model=model, source=f"{pair.aligned.source} shuffled")
    )


def _turned(change: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same singular values between random orthonormal directions; very tall tables only permute and flip rows."""
    if change.shape[0] > 8 * change.shape[1]:
        order = torch.randperm(change.shape[0], generator=generator)
        return change[order] * _signs((change.shape[0], 1), generator)
    s = torch.linalg.svdvals(change)
    u, v = (torch.randn(n, len(s), generator=generator, dtype=change.dtype) for n in change.shape)
    return (torch.linalg.qr(u).Q * s) @ torch.linalg.qr(v).Q.T


def _signs(shape: Any, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
