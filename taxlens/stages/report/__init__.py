"""The report stage: the run as one page."""

from __future__ import annotations

from taxlens.core.lazy import Lazy
from taxlens.stages.stage import Stage

REPORT_STAGE = Stage(
    "report",
    "Write a run's report.",
    compute=Lazy("taxlens.report.page:stage_report"),
    reads=(),
    command=False,
    cost=Lazy("taxlens.stages.report.report_cost:report_cost"),
)
