"""What the logit lens takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.lens.lens_section import LensSection
from taxlens.stages.needs import LIBRARIES, ROW, scoring_bytes
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import FEW, few, once, scored, seconds_of, tokens_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


def lens_cost(job: RunContext, section: LensSection) -> StageCost:
    """Return what reading the answer after every layer takes, from some items of the largest suite."""
    pairs = scored(job)
    if not pairs:
        return StageCost(0.0)
    each = once(job, "lens", lambda: _trial(job))
    seconds = sum(each * tokens_of(job, suite, template, most=section.items) for template, suite in pairs)
    rows = len(pairs) * 2 * job.pair.base.anatomy.n_layers
    return StageCost(seconds / 60, disk=rows * 2 * ROW, memory=scoring_bytes(job) + LIBRARIES)


def _trial(job: RunContext) -> float:
    """Seconds that a token takes, in both models and at every layer."""
    from taxlens.analysis.readings.logit_lens import logit_lens

    template, suite = max(scored(job), key=lambda pair: len(pair[1]))
    part = few(suite, 2 * FEW)
    taken = seconds_of(lambda: logit_lens(job.pair, part, template=template, items="all", bootstrap=100), times=1)
    return taken / tokens_of(job, part, template)
