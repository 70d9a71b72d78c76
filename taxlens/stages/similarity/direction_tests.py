"""Are the directions that the spectra found what the suites need? Taken out of base, put back into aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.pair import ModelPair
from taxlens.analysis.interventions.ablation import direction_effects
from taxlens.core.progress import SILENT, Progress
from taxlens.probes.spectra.spectra import Spectra, Spectrum
from taxlens.stages.similarity.direction_names import leading_directions
from taxlens.stages.similarity.similarity_tables import DIRECTION_EFFECTS

SITE = "resid_post"


TESTED_ITEMS = 64
"""Items of a suite that directions are tested on, at most."""


def strongest_layers(spectra: Spectra, *, count: int) -> list[int]:
    """Return the layers whose spectra leave their null furthest, summed over the ranks beyond it; fewest first to none.

    Args:
        spectra: of several layers.
        count: how many layers at most; layers without a rank beyond the null are never among them.
    """
    reach: dict[int, float] = {}
    for one in spectra.spectra:
        reach[one.layer] = reach.get(one.layer, 0.0) + _reach(one)
    ranked = sorted((layer for layer, value in reach.items() if value > 0), key=lambda layer: -reach[layer])
    return ranked[:count]


def _reach(one: Spectrum) -> float:
    beyond = one.values[one.outside]
    distance = one.null_low[0] - beyond if one.name == "gain" else beyond - one.null_high[0]
    return float(distance.sum())


def direction_test(
    pair: ModelPair,
    suites: Sequence[Suite],
    found: Mapping[tuple[str, str], Spectra],
    centres: Mapping[tuple[str, str, int], np.ndarray],
    *,
    template: str,
    layers: int = 1,
    top: int = 3,
    items: int = TESTED_ITEMS,
    metrics: Sequence[str] = ("accuracy", "probability"),
    seed: int = 0,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Return direction_effects.csv of one template: what the directions beyond the null are worth to each suite.

    At each of the strongest layers, the leading gain and loss directions together make a subspace. `ablate`: base
    without it (positive: base uses it); `inject`: aligned with base's coordinates in it (negative: some of the loss
    comes back). Beside each, the same with random subspaces of the same rank. Only `resid_post` is tested.

    Args:
        pair: base and aligned.
        suites: capability suites with choices.
        found: spectra by (template, site), centres: base's mean row by (template, site, layer), of the same store.
        template: which template.
        layers: how many layers.
        top: directions of each spectrum.
        items: most items a suite, spread over its groups.
        metrics: of `analysis.metrics`.
        seed: of random subspaces and intervals.
        progress: shows suite by suite.
    """
    spectra = found.get((template, SITE))
    chosen = [] if spectra is None else strongest_layers(spectra, count=layers)
    frames = []
    with progress.task("test directions", total=len(chosen) * len(suites), unit="suites") as task:
        for layer in chosen:
            here = Spectra(tuple(one for one in spectra.spectra if one.layer == layer))  # type: ignore[union-attr]
            directions = leading_directions(here, top=top)
            names = " ".join(f"{one.source['spectrum']}{one.source['rank']}" for one in directions)
            for suite in suites:
                part = at_most(suite, items, seed=seed)
                effects = direction_effects(
                    pair, directions, part, centre=centres[template, SITE, layer], template=template,
                    metrics=tuple(metrics), seed=seed,
                )  # fmt: skip
                frame = effects.to_frame().assign(site=SITE, layer=layer, rank=effects.rank, directions=names)
                frames.append(frame)
                task.advance(note=f"{suite.name} {SITE}.{layer}")
    return DIRECTION_EFFECTS.join(frames)[list(DIRECTION_EFFECTS.names)]
