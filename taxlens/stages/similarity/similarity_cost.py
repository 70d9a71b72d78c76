"""What comparing activations takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from taxlens.stages.needs import LIBRARIES, ROW
from taxlens.stages.similarity.direction_tests import TESTED_ITEMS
from taxlens.stages.similarity.similarity_section import SimilaritySection
from taxlens.stages.similarity.store_similarity import MAP_ROWS, MATRICES
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import once, scored, seconds_a_token, seconds_of, tokens_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


PLACE = 18_000
"""Bytes of a layer in the tables, most of them the names of its directions."""
FOLDS = 10
"""Folds whose moments are held at once."""
DIRECTIONS = 60.0
"""Scorings of a suite that a test of directions takes: ablate and inject, and their random subspaces."""


def similarity_cost(job: RunContext, section: SimilaritySection) -> StageCost:
    """Return what similarity takes: one layer is compared on made-up rows of the run's size, for every layer."""
    captured, depth = job.config.capture, job.pair.base.anatomy.n_layers
    layers = depth if captured.layers == "all" else len(captured.layers)
    templates = len(captured.templates or job.config.templates)
    rows = sum(sum(1 + 2 * bool(item.choices) for item in suite.items) for suite in job.suites.values())
    seconds = templates * len(captured.sites) * layers * _one_layer(job, section, rows)
    seconds += templates * len(captured.sites) * len(section.map) * layers**2 * _one_cell(job, min(rows, MAP_ROWS))
    if section.test_layers and section.name_directions and section.spectra:
        for template, suite in scored(job, attributed=True, kind="capability"):
            tokens = tokens_of(job, suite, template, most=TESTED_ITEMS)
            seconds += DIRECTIONS * section.test_layers * tokens * seconds_a_token(job)
    places, width = templates * len(captured.sites), job.pair.base.anatomy.d_model
    disk = places * layers * (PLACE + 8 * width * section.name_directions) + places * len(section.map) * layers**2 * ROW
    matrices = 8.0 * width**2 * (MATRICES + FOLDS)
    return StageCost(seconds / 60, disk=disk, memory=LIBRARIES + matrices + 24.0 * width * min(rows, MAP_ROWS))


def _rows(job: RunContext, rows: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    base = draw.normal(size=(rows, job.pair.base.anatomy.d_model)).astype("float32")
    return base, (base + 0.1 * draw.normal(size=base.shape)).astype("float32")


def _one_layer(job: RunContext, section: SimilaritySection, rows: int) -> float:
    from taxlens.probes.similarity.accumulation import gather
    from taxlens.probes.similarity.similarity import similarity
    from taxlens.probes.spectra.spectra import spectra

    def compare() -> None:
        found = gather(_rows(job, rows), [f"g{n // 8}" for n in range(rows)], seed=0)
        if section.measures:
            similarity(found, measures=section.measures)
        if section.spectra:
            spectra(found, layer=0, site="", seed=0)

    return once(job, "compare", lambda: seconds_of(compare, times=1))


def _one_cell(job: RunContext, rows: int) -> float:
    from taxlens.probes.similarity.layer_map import layer_map

    base, aligned = _rows(job, rows)
    of = [f"g{n // 8}" for n in range(rows)]

    def cells() -> object:
        return layer_map(lambda layer: base, lambda layer: aligned, [0, 1], groups=of)

    return once(job, "map", lambda: seconds_of(cells, times=1) / 4)
