"""What measuring the tax takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.needs import ROW, scoring_bytes
from taxlens.stages.stage import StageCost
from taxlens.stages.tax.tax_run import answered_suites, sampled_suites, samples_of
from taxlens.stages.tax.tax_section import TaxSection
from taxlens.stages.trials import scored, seconds_a_token, seconds_an_interval, tokens_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


INTERVALS = 4
"""Bootstraps of a row of the ledger: its own, the groups', the sign flips, its share of the 2 x 2."""
ANSWER, SMALL = 400, 6e4
"""Bytes of an answer in its table, and of the tables that do not grow with the items."""
DECODING = 4.0
"""How much longer a token takes when it is written than when it is read."""


def tax_cost(job: RunContext, section: TaxSection) -> StageCost:
    """Return what scoring every suite in every template takes, the intervals, and the answers where they are asked for."""
    seconds, token = 0.0, seconds_a_token(job)
    for _, suite in scored(job, several_right=True):
        for template in job.config.templates:
            seconds += 2 * token * tokens_of(job, suite, template)
            seconds += len(section.metrics) * INTERVALS * seconds_an_interval(job, list(suite.groups))
        if section.prior:
            seconds += 2 * token * tokens_of(job, suite, job.config.templates[0])
    asked = [*answered_suites(job, section), *sampled_suites(job, section)]
    for suite, _ in asked:
        written = len(suite) * section.max_new_tokens * (1 + samples_of(job.config, section))
        seconds += 2 * DECODING * token * written
    rows = 2 * len(job.config.templates) * sum(len(suite) for _, suite in scored(job))
    answers = sum(2 * len(suite) * (1 + samples_of(job.config, section)) for suite, _ in asked)
    return StageCost(seconds / 60, disk=rows * ROW + answers * ANSWER + SMALL, memory=scoring_bytes(job))
