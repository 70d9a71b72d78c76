"""The lens stage: what each layer's stream would answer, in both models."""

from __future__ import annotations

from taxlens.analysis.readings.reading_tables import LOGIT_LENS
from taxlens.core.lazy import Lazy
from taxlens.stages.lens.lens_section import LensSection
from taxlens.stages.stage import Figure, Stage

LENS_STAGE = Stage(
    "lens",
    "Read the answer after every layer.",
    compute=Lazy("taxlens.stages.lens.lens_run:stage_lens"),
    reads=("tax.bootstrap",),
    section=LensSection,
    key="lens",
    always=False,
    cost=Lazy("taxlens.stages.lens.lens_cost:lens_cost"),
    tables=(LOGIT_LENS,),
    figures=(
        Figure(
            "logit_lens", ("logit_lens",), Lazy("taxlens.stages.lens.lens_figure:lens_drawings"), group="By layer",
            first=("logit_lens_SUITE_*",), each=True,
        ),
    ),
)  # fmt: skip
