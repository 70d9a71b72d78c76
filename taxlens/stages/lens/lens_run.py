"""The stage that reads the answer after every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from taxlens.stages.lens.lens_section import LensSection
from taxlens.stages.section import arguments

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def stage_lens(job: RunContext, section: LensSection) -> None:
    """Read the answer after every layer of both models, suite by suite: logit_lens.csv."""
    from taxlens.analysis.readings.logit_lens import LOGIT_LENS, logit_lens

    frames = []
    for template, suites in job.by_template().items():
        found = logit_lens(
            job.pair, suites, template=template, bootstrap=job.config.tax.bootstrap, seed=job.config.seed,
            progress=job.progress, **arguments(section, logit_lens),
        )  # fmt: skip
        frames.append(found.to_frame())
    job.run.write(
        LOGIT_LENS, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(LOGIT_LENS.columns))
    )
