"""The stage that measures the tax, and on request everything else that alignment cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.activations.items.gold import has_several_right
from taxlens.analysis.answers.answer_tables import ANSWERS, BILL, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, POWER, PRIOR, TAX, TAX_2X2
from taxlens.core.errors import ItemError
from taxlens.stages.section import arguments
from taxlens.stages.tax.tax_section import TaxSection

if TYPE_CHECKING:
    from pathlib import Path

    from taxlens.activations.items.items import Suite
    from taxlens.analysis.answers.answers import Answers
    from taxlens.analysis.tax.tax import Tax
    from taxlens.config.schema import Config
    from taxlens.runs.context import RunContext

AUTO_SAMPLES = 4
"""Continuations a prompt for versatility where the tax section names no number and suites ask for answers."""


def stage_tax(job: RunContext, section: TaxSection) -> None:
    """Measure the tax of every suite in every template: tax.csv, tax_2x2.csv, items.csv, power.csv; the other taxes."""
    from taxlens.analysis.answers.bill import alignment_bill
    from taxlens.analysis.tax.tax import measure_tax

    config = job.config
    options = arguments(section, measure_tax) | {"seed": config.seed, "progress": job.progress}
    scored = [suite for suites in job.by_template(several_right=True).values() for suite in suites]
    in_order = sorted(scored, key=lambda suite: list(job.suites).index(suite.name))
    tax = measure_tax(job.pair, in_order, **options, templates=config.templates)
    generated, costs, said = _generated_taxes(job, section)
    ledger = [tax.to_frame(), generated]
    job.run.write(BILL, alignment_bill(TAX.join(ledger), costs))
    own = [
        measure_tax(job.pair, suites, **options, templates=(template,))
        for template, suites in _write_answer_suites(job, said).items()
    ]
    job.run.write(TAX, TAX.join([*ledger, *(one.to_frame() for one in own)]))
    job.run.write(TAX_2X2, tax.two_by_two())
    job.run.write(ITEMS, ITEMS.join([tax.items(), *(one.items() for one in own)]))
    job.run.write(CHANGED, tax.changed())
    job.run.write(POWER, _power(tax))
    job.run.note(tax={"notes": [*tax.notes, *_left_out(job)]})
    if section.prior:
        from taxlens.analysis.tax.surface_form import measure_prior

        shared = {"bootstrap": section.bootstrap, "seed": config.seed, "progress": job.progress}
        job.run.write(PRIOR, measure_prior(job.pair, tax, **shared).to_frame())


def _left_out(job: RunContext) -> list[str]:
    """What a reader must know of items that were left out, and of suites that are measured and nothing more."""
    notes = [
        f"{suite.name}: {suite.left_out} items were left out, {len(suite)} are measured."
        for suite in job.suites.values()
        if suite.left_out
    ]
    several = [suite.name for suite in job.suites.values() if has_several_right(suite)]
    if several:
        notes.append(f"{', '.join(several)}: items with several right choices are measured, and not attributed.")
    return notes


def _power(tax: Tax) -> pd.DataFrame:
    """What the suites at hand can see, in the metrics of 0..1 that were measured."""
    from taxlens.analysis.tax.power import measured_power

    metrics = [metric for metric in ("accuracy", "probability") if metric in tax.measured[0].base]
    frames = [measured_power(tax.measured, metric=metric).to_frame() for metric in metrics]
    return POWER.join(frames)


def answered_suites(job: RunContext, section: TaxSection) -> list[tuple[Suite, str]]:
    """The suites that both models answer whole, each with a template."""
    asked = [one.name for one in job.config.suites if one.generate or one.answers]
    names = dict.fromkeys((*section.generate, *asked))
    return [(job.suites[name], template) for name in names for template in _templates(job, section, name)]


def sampled_suites(job: RunContext, section: TaxSection) -> list[tuple[Suite, str]]:
    """Some items of every suite that says nothing of answers and can be answered, each with a template: for the bill."""
    from taxlens.activations.items.sampling import at_most
    from taxlens.activations.models.prompts import fitting

    found: list[tuple[Suite, str]] = []
    for one in job.config.suites if section.generate_items else ():
        whole = job.suites[one.name]
        if one.generate is not None or one.answers or one.name in section.generate or not _can_be_answered(whole):
            continue
        few = at_most(whole, section.generate_items, seed=job.config.seed)
        for template in _templates(job, section, one.name):
            kept = fitting(job.pair, few, (template,), room=section.max_new_tokens)
            if kept:
                found.append((few.subset(kept), template))
    return found


def _can_be_answered(suite: Suite) -> bool:
    return all(item.text is None and not item.contexts and (item.prompt or "").strip() for item in suite.items)


def _templates(job: RunContext, section: TaxSection, name: str) -> tuple[str, ...]:
    sections = {one.name: one for one in job.config.suites}
    return section.generate_templates or (job.template_of(sections[name]),)


def samples_of(config: Config, section: TaxSection) -> int:
    """The continuations a prompt for versatility: as the section says, or as many as suites that are answered need."""
    if section.samples is not None:
        return section.samples
    return AUTO_SAMPLES * any(suite.generate is not False for suite in config.suites)


def _generated_taxes(
    job: RunContext, section: TaxSection
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, str], Answers]]:
    """Write what both models' answers cost; their rows of tax.csv and of costs.csv, and what suites' whole answers were."""
    whole, some = answered_suites(job, section), sampled_suites(job, section)
    folder = job.run.folder / "answers" if job.run.writes else None
    if not whole and not some:
        remove_answers(folder, ())
        return TAX.frame([]), COSTS.frame([]), {}
    from taxlens.analysis.answers.taxes import measure_other_taxes

    config = job.config
    shared = arguments(section, measure_other_taxes, leave=("samples",))
    shared |= {"samples": samples_of(config, section), "seed": config.seed, "folder": folder, "progress": job.progress}
    if section.judge_address:
        from taxlens.analysis.answers.judge import ChatJudge

        shared["judge"] = ChatJudge(section.judge_address, model=section.judge_model)
    found = measure_other_taxes(job.pair, whole, brief=some, **shared)
    for table in (COSTS, ANSWERS, *((DIVERGENCE, SURROGATE) if whole else ())):
        job.run.write(table, getattr(found, table.name))
    remove_answers(folder, [(suite.name, template) for suite, template in (*whole, *some)])
    return found.tax, found.costs, found.said


def remove_answers(folder: Path | None, asked: Iterable[tuple[str, str]]) -> None:
    """Remove the kept answers of suites that are asked no longer."""
    kept = tuple(f"{suite}.{template}." for suite, template in asked)
    for file in folder.glob("*.jsonl") if folder is not None and folder.is_dir() else ():
        if not (kept and file.name.startswith(kept)):
            file.unlink()


def _write_answer_suites(job: RunContext, said: dict[tuple[str, str], Answers]) -> dict[str, list[Suite]]:
    """Write the suites of both models' own answers where the config asks for them; by template."""
    from taxlens.activations.items.items import write_suite

    found: dict[str, list[Suite]] = {}
    for one in job.config.suites:
        template = job.template_of(one)
        answers = said.get((one.name, template)) if one.answers else None
        for side in ("base", "aligned") if answers is not None else ():
            try:
                suite = answers.as_suite(side)
            except ItemError as error:
                job.tell(f"suite {one.name}: {str(error).splitlines()[0]}")
                break
            if job.run.writes:
                write_suite(suite, job.answers_path(one, side))
            found.setdefault(template, []).append(suite)
    return found
