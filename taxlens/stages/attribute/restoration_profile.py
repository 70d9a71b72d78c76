"""The restoration profile of a run: what comes back when the base computes everything below a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.analysis.interventions.effect_tables import ATTRIBUTION_ITEMS, RESTORATION

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.runs.context import RunContext
    from taxlens.stages.attribute.attribution_section import AttributionSection


def measure_restoration(job: RunContext, section: AttributionSection) -> None:
    """Write restoration.csv: the base's stream injected before each layer asked for, on the attributed items.

    Nothing is written where the config's `attribution.stitch` is empty.
    """
    from taxlens.analysis.interventions.stitching import stitched_profile
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure
    from taxlens.analysis.scoring.metrics import scored_metrics

    if not section.stitch:
        return
    layers = None if section.stitch == "all" else tuple(section.stitch)
    rows = job.run.read(ATTRIBUTION_ITEMS)[["suite", "item"]].drop_duplicates()
    attributed = {str(suite): set(part["item"]) for suite, part in rows.groupby("suite")}
    frames = []
    for template, suites in job.by_template(attributed=True).items():
        asked = tuple(suite.subset(_places(suite, attributed[suite.name])) for suite in suites)
        found = stitched_profile(
            job.pair,
            ChoiceMeasure(
                job.pair, asked, template=template, metrics=tuple(m for m in section.metrics if m in scored_metrics())
            ),
            groups={suite.name: suite.groups for suite in asked},
            layers=layers,
            draws=job.config.tax.bootstrap,
            seed=job.config.seed,
            progress=job.progress,
        )
        frame = found.to_frame()
        frame.insert(1, "template", template)
        frames.append(frame)
    job.run.write(RESTORATION, RESTORATION.join(frames))


def _places(suite: Suite, items: set[str]) -> list[int]:
    return [place for place, item in enumerate(suite.items) if item.id in items]
