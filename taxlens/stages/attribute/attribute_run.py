"""The attribution of a run: effects that sum to the tax, and what says how far to trust and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.effect_tables import SCREEN
from taxlens.analysis.readings.reading_tables import ATTRIBUTION_SEEDS
from taxlens.analysis.scoring.metrics import main_metric, scored_metrics, smooth_metrics
from taxlens.stages.attribute import ATTRIBUTE_STAGE
from taxlens.stages.attribute.attribution_section import AttributionSection
from taxlens.stages.attribute.restoration_profile import measure_restoration
from taxlens.stages.section import arguments
from taxlens.stages.stage import tables_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.path.attribution import Attribution
    from taxlens.analysis.path.polyline import Polyline
    from taxlens.runs.context import RunContext

Tables = dict[str, pd.DataFrame]


PATCHED_ITEMS = 32
"""Items of a suite that patches and the screen are measured on, at most."""
POSITIONS_PATCHED = 8
"""Positions of the first component that are patched one by one; the later ones together."""


def stage_attribute(job: RunContext, section: AttributionSection) -> None:
    """Write attribution*.csv, closure.csv, path.csv, and what the config asks for beside them.

    attribution_units, attribution_reading (`attribution.reading`), attribution_names; agreement (where further
    `methods` are named), screen (`screen`), attribution_null (`null_draws`), patches (`patches`), attribution_segments and
    closure_segments (a list of aligned), attribution_seeds (a list of seeds), restoration (`stitch`).
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    grouped, own = job.by_template(attributed=True), job.answer_suites()
    for template in dict.fromkeys([*grouped, *own]):
        suites = [*grouped.get(template, ()), *own.get(template, ())]
        found, further = _walked(job, suites, template)
        asked = [suite.subset(_places(suite, found.suites[suite.name].items)) for suite in suites]
        tables = _tables(job, found) | further | _read(job, asked, found)
        swaps = _swaps(job, asked, template, found)
        tables |= _screened(job, asked, template)
        tables |= _agreement(tables, swaps) | _null(job, asked, template, found) | _patched(job, asked, template, found)
        tables["attribution_names"] = _names(job, found, tables)
        for name, frame in tables.items():
            parts.setdefault(name, []).append(frame)
        for name, frame in swaps.items():
            parts[name].append(frame)
    declared = tables_of([ATTRIBUTE_STAGE])
    for name, frames in parts.items():
        job.run.write(declared[name], declared[name].join(frames))
    measure_restoration(job, section)


def _walked(job: RunContext, suites: Sequence[Suite], template: str) -> tuple[Attribution, Tables]:
    """The attribution of aligned against base, and the tables of segments or seeds where there are several."""
    from taxlens.activations.models.pair import make_pair
    from taxlens.analysis.path.attribute import attribute
    from taxlens.analysis.path.polyline import attribute_polyline

    section, options = job.config.attribution, path_options(job, template)
    if job.steps and job.config.pair.several == "chain":
        line = attribute_polyline([job.pair.base, *job.steps, job.pair.aligned], suites, **options)
        return line.whole(), _segments(line)
    found = attribute(job.pair, suites, **options)
    if not job.steps:
        return found, {}
    shared = options | {"levels": ("component",), "tokens": False, "perplexity": False}
    others = [attribute(make_pair(job.pair.base, step), suites, **shared) for step in job.steps]
    return found, {"attribution_seeds": _seeds([*others, found], section.metrics)}


def path_options(job: RunContext, template: str) -> dict[str, Any]:
    """Return what `attribute` is asked for by a run's config."""
    from taxlens.analysis.path.attribute import attribute

    shared = {"bootstrap": job.config.tax.bootstrap, "seed": job.config.seed, "progress": job.progress}
    return arguments(job.config.attribution, attribute) | shared | {"template": template}


def _tables(job: RunContext, found: Attribution) -> Tables:
    from taxlens.analysis.readings.significance import significance_frame

    tested = significance_frame(found, draws=job.config.tax.bootstrap, seed=job.config.seed)
    return {
        "attribution": found.to_frame().merge(tested, on=["suite", "metric", "level", "component"], how="left"),
        "attribution_items": found.items_frame(),
        "attribution_tokens": found.tokens_frame(),
        "closure": found.closure_frame(),
        "path": found.path_frame(),
    }


def _segments(line: Polyline) -> Tables:
    return {"attribution_segments": line.to_frame(), "closure_segments": line.closure_frame()}


def _seeds(found: Sequence[Attribution], metrics: Sequence[str]) -> pd.DataFrame:
    from taxlens.analysis.readings.triples import agreement_of_seeds

    frames = [
        agreement_of_seeds(found, suite, metric).assign(
            suite=suite, template=found[0].template, metric=metric, seeds=len(found)
        )
        for suite in found[0].suites
        for metric in metrics
    ]
    return ATTRIBUTION_SEEDS.join(frames)[list(ATTRIBUTION_SEEDS.names)]


def _read(job: RunContext, suites: Sequence[Suite], found: Attribution) -> Tables:
    from taxlens.analysis.readings.triple_tables import reading_tables

    top = job.config.attribution.reading
    if not top or "singular" not in next(iter(found.suites.values())).units or not _has(found, "singular"):
        return {}
    return reading_tables(job.pair, suites, found, metric=main_metric(job.config.attribution.metrics), top=top)


def _has(found: Attribution, level: str) -> bool:
    return any(key[1] == level for walked in found.suites.values() for key in walked.values)


def _names(job: RunContext, found: Attribution, tables: Tables) -> pd.DataFrame:
    from taxlens.analysis.readings.triple_tables import names_table

    units = tables.get("attribution_units")
    leading = [] if units is None else list(dict.fromkeys(units["component"]))
    return names_table(job.pair, found, singular=leading)


def _swaps(job: RunContext, suites: Sequence[Suite], template: str, found: Attribution) -> Tables:
    from taxlens.analysis.interventions.methods import swap_tables

    section = job.config.attribution
    others = [method for method in section.methods if method != "path"]
    if not others:
        return {}
    return swap_tables(
        job.pair,
        suites,
        found,
        template=template,
        methods=others,
        metrics=section.metrics,
        seed=job.config.seed,
        bootstrap=job.config.tax.bootstrap,
        progress=job.progress,
    )


def _agreement(tables: Tables, swaps: Tables) -> Tables:
    """The methods side by side, at component level, where there are further methods."""
    from taxlens.analysis.readings.agreement import agreement

    if not swaps:
        return {}
    both = pd.concat([tables["attribution"], swaps["attribution"]], ignore_index=True)
    both = both[both["metric"].isin(set(swaps["attribution"]["metric"]) & set(tables["attribution"]["metric"]))]
    return {"agreement": agreement(both[both["level"] == "component"], tables["closure"])}


def _null(job: RunContext, suites: Sequence[Suite], template: str, found: Attribution) -> Tables:
    """What changes of equal spectrum in random directions do: at component level, seven gradients a draw at most."""
    from taxlens.analysis.readings.significance import null_effects, null_frame

    draws = job.config.attribution.null_draws
    if not draws:
        return {}
    options = path_options(job, template) | {
        "levels": ("component",),
        "tokens": False,
        "perplexity": False,
        "items": "all",
    }
    options |= {"max_gradients": min(7, job.config.attribution.max_gradients)}
    return {"attribution_null": null_frame(found, null_effects(job.pair, suites, draws=draws, **options))}


def _patched(job: RunContext, suites: Sequence[Suite], template: str, found: Attribution) -> Tables:
    from taxlens.activations.items.sampling import at_most
    from taxlens.analysis.interventions.patch_table import chosen_patches, patch_table

    section = job.config.attribution
    if not section.patches:
        return {}
    table, seed = found.to_frame(), job.config.seed
    patches = chosen_patches(job.pair, table, leading=section.patches, positions=POSITIONS_PATCHED, seed=seed)
    metrics = tuple(metric for metric in section.metrics if metric in scored_metrics()) or ("probability",)
    asked = [at_most(suite, PATCHED_ITEMS, seed=seed) for suite in suites]
    shared = {"draws": job.config.tax.bootstrap, "seed": seed, "progress": job.progress}
    return {"patches": patch_table(job.pair, asked, patches, template=template, metrics=metrics, **shared)}


def _screened(job: RunContext, suites: Sequence[Suite], template: str) -> Tables:
    """Attribution patching of every part, in the main metric (nll where that has no gradient), with its check."""
    from taxlens.activations.items.sampling import at_most
    from taxlens.analysis.interventions.attribution_patching import attribution_patch

    section, seed = job.config.attribution, job.config.seed
    if not section.screen:
        return {}
    metric = (
        main_metric(job.config.attribution.metrics)
        if main_metric(job.config.attribution.metrics) in smooth_metrics()
        else "nll"
    )
    frames = []
    for suite in (at_most(suite, PATCHED_ITEMS, seed=seed) for suite in suites):
        found = attribution_patch(
            job.pair, suite, metric=metric, template=template, check=section.screen, progress=job.progress
        )
        groups = np.array([item.group for item in suite.items if item.choices], dtype=object)
        frames.append(
            found.to_frame(groups=groups, draws=job.config.tax.bootstrap, seed=seed).assign(template=template)
        )
    return {"screen": SCREEN.join(frames)[list(SCREEN.names)]}


def _places(suite: Suite, items: Sequence[str]) -> list[int]:
    wanted = set(items)
    return [place for place, item in enumerate(suite.items) if item.id in wanted]
