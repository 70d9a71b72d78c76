"""The tax stage: how much was lost, on which items, and what else alignment cost."""

from __future__ import annotations

from taxlens.analysis.answers.answer_tables import ANSWERS, BILL, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, POWER, PRIOR, TAX, TAX_2X2
from taxlens.core.lazy import Lazy
from taxlens.stages.stage import Figure, Stage, Words
from taxlens.stages.tax.tax_section import TaxSection

_DRAWINGS = "taxlens.stages.tax.tax_drawings"

TAX_STAGE = Stage(
    "tax",
    "Measure what was lost, suite by suite.",
    compute=Lazy("taxlens.stages.tax.tax_run:stage_tax"),
    shared=True,
    reads=(),
    section=TaxSection,
    key="tax",
    tables=(TAX, TAX_2X2, ITEMS, CHANGED, POWER, PRIOR, COSTS, DIVERGENCE, SURROGATE, ANSWERS, BILL),
    summary=("tax",),
    figures=(
        Figure(
            "tax", ("tax",), Lazy(f"{_DRAWINGS}:tax_drawings"), group="Tax", first=("tax_*",), alone=True
        ),
        Figure(
            "two_by_two", ("tax_2x2",), Lazy(f"{_DRAWINGS}:two_by_two_drawings"), group="Tax",
            first=("two_by_two_*",), alone=True,
        ),
        Figure("lost_won", ("tax",), Lazy(f"{_DRAWINGS}:lost_won_drawings"), group="Tax", alone=True),
        Figure("items", ("items",), Lazy(f"{_DRAWINGS}:items_drawings"), group="Tax", first=("items_SUITE_*",), each=True),
        Figure("bill", ("bill",), Lazy(f"{_DRAWINGS}:bill_drawings"), group="Tax"),
        Figure("costs", ("costs",), Lazy(f"{_DRAWINGS}:costs_drawings"), optional=("divergence", "bill"), group="Tax"),
        Figure("divergence", ("divergence",), Lazy(f"{_DRAWINGS}:divergence_drawings"), group="Tax", alone=True),
        Figure("prior", ("prior",), Lazy(f"{_DRAWINGS}:prior_drawings"), group="Tax", alone=True),
        Figure("power", ("power",), Lazy(f"{_DRAWINGS}:power_drawings"), group="Tax"),
    ),
    words=Words(
        clauses=Lazy("taxlens.stages.tax.tax_words:tax_clauses"),
        closing=Lazy("taxlens.stages.tax.tax_words:tax_closing"),
        methods=Lazy("taxlens.stages.tax.tax_words:tax_methods"),
        latex=Lazy("taxlens.stages.tax.tax_words:tax_latex"),
        terminal=Lazy("taxlens.stages.tax.tax_terminal:tax_terminal"),
    ),
    check=Lazy("taxlens.stages.tax.tax_check:check_tax"),
    cost=Lazy("taxlens.stages.tax.tax_cost:tax_cost"),
)  # fmt: skip
