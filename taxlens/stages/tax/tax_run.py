"""The stage that measures the tax, and on request everything else that alignment cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.answers.answer_tables import ANSWERS, BILL, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, POWER, PRIOR, TAX, TAX_2X2
from taxlens.stages.section import arguments
from taxlens.stages.tax.tax_section import TaxSection

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.tax.tax import Tax
    from taxlens.config.schema import Config
    from taxlens.runs.context import RunContext

AUTO_SAMPLES = 4
"""Continuations a prompt for versatility where a suite says ``generate: true`` and the tax section names no number."""


def stage_tax(job: RunContext, section: TaxSection) -> None:
    """Measure the tax of every suite in every template: tax.csv, tax_2x2.csv, items.csv, power.csv; the other taxes."""
    from taxlens.analysis.answers.bill import alignment_bill
    from taxlens.analysis.tax.tax import measure_tax

    config = job.config
    asked = answered_suites(job, section)
    scored = [suite for suites in job.by_template().values() for suite in suites]
    tax = measure_tax(
        job.pair,
        sorted(scored, key=lambda suite: list(job.suites).index(suite.name)),
        **arguments(section, measure_tax),
        templates=config.templates,
        seed=config.seed,
        progress=job.progress,
    )
    generated, costs = _generated_taxes(job, section, asked)
    ledger = TAX.join([tax.to_frame(), generated])
    job.run.write(TAX, ledger)
    job.run.write(BILL, alignment_bill(ledger, costs))
    job.run.write(TAX_2X2, tax.two_by_two())
    job.run.write(ITEMS, tax.items())
    job.run.write(CHANGED, tax.changed())
    job.run.write(POWER, _power(tax))
    job.run.note(tax={"notes": list(tax.notes)})
    if section.prior:
        from taxlens.analysis.tax.surface_form import measure_prior

        shared = {"bootstrap": section.bootstrap, "seed": config.seed, "progress": job.progress}
        job.run.write(PRIOR, measure_prior(job.pair, tax, **shared).to_frame())


def _power(tax: Tax) -> pd.DataFrame:
    """What the suites at hand can see, in the metrics of 0..1 that were measured."""
    from taxlens.analysis.tax.power import measured_power

    metrics = [metric for metric in ("accuracy", "probability") if metric in tax.measured[0].base]
    frames = [measured_power(tax.measured, metric=metric).to_frame() for metric in metrics]
    return POWER.join(frames)


def answered_suites(job: RunContext, section: TaxSection) -> list[tuple[Suite, str]]:
    """The suites that both models answer, each with a template."""
    config = job.config
    sections = {section.name: section for section in config.suites}
    asked = []
    named = [one.name for one in config.suites if one.generate and one.name not in section.generate]
    for name in (*section.generate, *named):
        for template in section.generate_templates or (job.template_of(sections[name]),):
            asked.append((job.suites[name], template))
    return asked


def samples_of(config: Config, section: TaxSection) -> int:
    """The continuations a prompt for versatility: as the section says, or as many as a generated suite needs."""
    if section.samples is not None:
        return section.samples
    return AUTO_SAMPLES * any(suite.generate for suite in config.suites)


def _generated_taxes(
    job: RunContext, section: TaxSection, asked: list[tuple[Suite, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write what both models' answers cost, and return their rows of tax.csv (exact match) and of costs.csv."""
    if not asked:
        return TAX.frame([]), COSTS.frame([])
    from taxlens.analysis.answers.taxes import measure_other_taxes

    config = job.config
    found = measure_other_taxes(
        job.pair,
        asked,
        **arguments(section, measure_other_taxes, leave=("samples",)),
        samples=samples_of(config, section),
        seed=config.seed,
        progress=job.progress,
    )
    for table in (COSTS, DIVERGENCE, ANSWERS, SURROGATE):
        job.run.write(table, getattr(found, table.name))
    return found.tax, found.costs
