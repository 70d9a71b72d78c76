"""What probing takes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from taxlens.stages.needs import LIBRARIES
from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import once, seconds_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


CASE = 3000
"""Bytes of a label at one place in the tables: both models, with every control."""


def probe_cost(job: RunContext, section: ProbeSection) -> StageCost:
    """Return what the probes take: one layer of each label is probed on made-up rows of its size, for every layer."""
    captured = job.config.capture
    layers = job.pair.base.anatomy.n_layers if captured.layers == "all" else len(captured.layers)
    places = layers * len(captured.sites) * len(captured.templates or job.config.templates)
    cases, width = _cases(job, section), job.pair.base.anatomy.d_model
    seconds = sum(places * _one_layer(job, section, *case) for case in cases)
    disk = sum(places * (CASE + 8 * width * values) for _, _, values in cases)
    rows = max((rows for rows, _, _ in cases), default=0)
    return StageCost(seconds / 60, disk=disk, memory=LIBRARIES + 2 * rows * width * (4 + 4 * 8))


def _cases(job: RunContext, section: ProbeSection) -> list[tuple[int, int, int]]:
    """Rows, groups and values of every label that is probed, suite by suite."""
    found = []
    for suite in job.suites.values():
        chosen = [item for item in suite.items if item.choices]
        if chosen and (section.labels == "all" or "correct" in section.labels):
            found.append((2 * len(chosen), len({item.group for item in chosen}), 2))
        names = {name for item in suite.items for name in item.labels}
        for name in sorted(names if section.labels == "all" else names & set(section.labels)):
            carried = [item for item in suite.items if name in item.labels]
            values = {item.labels[name] for item in carried}
            if 2 <= len(values) <= len(carried) // 4:
                found.append((len(carried), len({item.group for item in carried}), len(values)))
    return found


def _one_layer(job: RunContext, section: ProbeSection, rows: int, groups: int, values: int) -> float:
    from taxlens.probes.pair.probe_pair import probe_pair
    from taxlens.probes.rows.labels import ProbeWarning

    draw = np.random.default_rng(0)
    base, aligned = (draw.normal(size=(rows, job.pair.base.anatomy.d_model)).astype("float32") for _ in range(2))
    labels, of = np.arange(rows) % values, [f"g{n % groups}" for n in range(rows)]

    def probe() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbeWarning)  # of made-up rows
            return probe_pair(
                {0: (base, aligned)}, labels, of, probe=section.probe, permutations=section.permutations, seed=0
            )

    return once(job, f"probe {rows} {groups} {values}", lambda: seconds_of(probe, times=1))
