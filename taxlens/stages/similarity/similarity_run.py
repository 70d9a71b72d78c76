"""The stage that compares a run's activations, and tests the directions that it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from taxlens.stages.section import arguments
from taxlens.stages.similarity.similarity_section import SimilaritySection
from taxlens.stages.similarity.similarity_tables import (
    ACTIVATION_PLANE,
    DIRECTION_EFFECTS,
    DIRECTIONS,
    DRIFT_POSITIONS,
    REFUSAL_DIRECTION,
    REFUSAL_PROJECTIONS,
    SIMILARITY,
    SPECTRA,
)

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext
    from taxlens.stages.similarity.store_similarity import SimilarityTables


def stage_similarity(job: RunContext, section: SimilaritySection) -> None:
    """Compare the two models' activations: similarity.csv, spectra.csv, and what the directions found are and do."""
    from taxlens.analysis.directions.naming import Vocabulary
    from taxlens.stages.probe.probe_files import probe_directions, save_directions
    from taxlens.stages.similarity.planes import activation_plane, refusal_tables
    from taxlens.stages.similarity.store_similarity import similarity_store

    named = section.name_directions
    with job.open_store() as store:
        found = similarity_store(
            store,
            **arguments(section, similarity_store),
            probes=probe_directions(job.run.checked("probes")),
            vocabulary=Vocabulary.of_model(job.pair.base) if section.spectra and named else None,
            seed=job.config.seed,
            progress=job.progress,
        )
        benefits = {suite.name for suite in job.config.suites if suite.kind == "benefit"}
        projections, course = refusal_tables(store, benefits, seed=job.config.seed, progress=job.progress)
        job.run.write(ACTIVATION_PLANE, activation_plane(store, progress=job.progress))
    job.run.write(REFUSAL_PROJECTIONS, projections)
    job.run.write(REFUSAL_DIRECTION, course)
    job.run.write(SIMILARITY, found.similarity)
    job.run.write(SPECTRA, found.spectra)
    job.run.write(DRIFT_POSITIONS, found.positions)
    job.run.write(DIRECTIONS, found.names)
    folder = job.run.folder / "directions"
    for template, site in found.found:
        directions = found.directions(template, site, top=named)
        if directions:
            save_directions(directions, folder / f"{template}_{site}.safetensors")
    job.run.write(DIRECTION_EFFECTS, _direction_effects(job, section, found))


def _direction_effects(job: RunContext, section: SimilaritySection, found: SimilarityTables) -> pd.DataFrame:
    """What the directions beyond the null are worth to the capability suites, in the templates that were captured."""
    from taxlens.stages.similarity.direction_tests import direction_test

    frames = []
    wanted = section.test_layers and section.name_directions and found.found
    for template, suites in job.by_template(attributed=True).items() if wanted else ():
        frames.append(
            direction_test(
                job.pair,
                [suite for suite in suites if suite.kind == "capability"],
                found.found,
                found.centres,
                template=template,
                layers=section.test_layers,
                top=section.name_directions,
                metrics=job.config.tax.metrics,
                seed=job.config.seed,
                progress=job.progress,
            )
        )
    return DIRECTION_EFFECTS.join(frames)
