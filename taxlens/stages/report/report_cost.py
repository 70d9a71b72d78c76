"""What the report takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.needs import DRAWING
from taxlens.stages.section import Section
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import figure_count, once, seconds_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext

PAGE = 3.0
"""Seconds of reading the tables and writing the page."""
BYTES = 35_000
"""Of a figure inside the page."""


def report_cost(job: RunContext, section: Section) -> StageCost:
    """Return what the page takes: every figure of the run is read and made smaller."""
    count = figure_count(job)
    seconds = PAGE + count * once(job, "picture", lambda: seconds_of(_shrink))
    return StageCost(seconds / 60, disk=count * BYTES, memory=DRAWING)


def _shrink() -> None:
    import io

    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    drawn = np.where(draw.random((500, 1100, 1)) < 0.02, draw.integers(0, 255, (500, 1100, 3)), 255).astype(np.uint8)
    image = Image.fromarray(drawn).quantize(128, dither=Image.Dither.NONE)
    image.save(io.BytesIO(), format="png", optimize=True)
