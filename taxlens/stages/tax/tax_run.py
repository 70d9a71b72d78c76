"""The stage that measures the tax, and on request everything else that alignment cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.answers.answer_tables import ANSWERS, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, POWER, PRIOR, TAX, TAX_2X2

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.tax.tax import Tax
    from taxlens.runs.context import RunContext

FIGURES = ("tax", "two_by_two", "lost_won", "divergence", "prior")
"""What the stage draws when it is asked alone; `taxlens figures` draws the rest."""


def stage_tax(job: RunContext) -> None:
    """Measure the tax of every suite in every template: tax.csv, tax_2x2.csv, items.csv, power.csv; the other taxes.

    Asked alone (`taxlens tax`), it also draws the figures of these tables, the forest plot first.
    """
    from taxlens.analysis.tax.tax import measure_tax

    config = job.config
    asked = _to_generate(job)
    scored = [suite for suites in job.by_template().values() for suite in suites]
    tax = measure_tax(
        job.pair,
        sorted(scored, key=lambda suite: list(job.suites).index(suite.name)),
        templates=config.templates,
        metrics=config.tax.metrics,
        bootstrap=config.tax.bootstrap,
        seed=config.seed,
        interval=config.tax.interval,
        margin=config.tax.margin,
        progress=job.progress,
    )
    generated = _generated_taxes(job, asked)
    job.run.write(TAX, TAX.join([tax.to_frame(), generated]))
    job.run.write(TAX_2X2, tax.two_by_two())
    job.run.write(ITEMS, tax.items())
    job.run.write(CHANGED, tax.changed())
    job.run.write(POWER, _power(tax))
    job.run.manifest["tax"] = {"notes": list(tax.notes)}
    job.run.save()
    if config.tax.prior:
        from taxlens.analysis.tax.surface_form import measure_prior

        shared = {"bootstrap": config.tax.bootstrap, "seed": config.seed, "progress": job.progress}
        job.run.write(PRIOR, measure_prior(job.pair, tax, **shared).to_frame())
    if "figures" not in job.stages:
        _draw(job)


def _power(tax: Tax) -> pd.DataFrame:
    """What the suites at hand can see, in the metrics of 0..1 that were measured."""
    from taxlens.analysis.tax.power import measured_power

    metrics = [metric for metric in ("accuracy", "probability") if metric in tax.measured[0].base]
    frames = [measured_power(tax.measured, metric=metric).to_frame() for metric in metrics]
    return POWER.join(frames)


def _draw(job: RunContext) -> None:
    from taxlens.stages.figure_registry import KINDS, draw_run

    section = job.config.figures
    for name in FIGURES:
        if name in KINDS and all(job.run.has(table) for table in KINDS[name].tables):
            draw_run(job.run, venue=section.venue, width=section.width, only=name)


def _to_generate(job: RunContext) -> list[tuple[Suite, str]]:
    """The suites that both models answer, each with a template; a name that is no suite is refused before any work."""
    from taxlens.core.errors import ConfigError, one_of

    config = job.config
    sections = {section.name: section for section in config.suites}
    asked = []
    for name in config.tax.generate:
        one_of(name, list(sections), what="suite in tax.generate", error=ConfigError)
        for template in config.tax.generate_templates or (job.template_of(sections[name]),):
            asked.append((job.suites[name], template))
    return asked


def _generated_taxes(job: RunContext, asked: list[tuple[Suite, str]]) -> pd.DataFrame:
    """Write what both models' answers cost, and return their rows of tax.csv (exact match)."""
    if not asked:
        return TAX.frame([])
    from taxlens.analysis.answers.taxes import measure_other_taxes

    config = job.config
    found = measure_other_taxes(
        job.pair,
        asked,
        max_new_tokens=config.tax.max_new_tokens,
        samples=config.tax.samples,
        bootstrap=config.tax.bootstrap,
        seed=config.seed,
        progress=job.progress,
    )
    for table in (COSTS, DIVERGENCE, ANSWERS, SURROGATE):
        job.run.write(table, getattr(found, table.name))
    return found.tax
