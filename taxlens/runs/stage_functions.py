"""The stages of a run, each from what earlier stages left to tables of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.interventions.effect_tables import ATTRIBUTION
from taxlens.analysis.state.state_tables import EVIDENCE, STATES
from taxlens.config.schema import DiagnoseSection
from taxlens.runs.context import RunContext
from taxlens.stages.probe.probe_tables import PROBE_DROP, PROBES
from taxlens.stages.similarity.similarity_tables import (
    DIRECTION_EFFECTS,
    DIRECTIONS,
    DRIFT_POSITIONS,
    SIMILARITY,
    SPECTRA,
)
from taxlens.stages.tax.tax_run import stage_tax

if TYPE_CHECKING:
    from taxlens.stages.similarity.store_similarity import SimilarityTables


def stage_capture(job: RunContext) -> None:
    """Capture both models' activations to the store, after the self-check."""
    from taxlens.activations.capture.capture import capture

    section = job.config.capture
    store = capture(
        job.pair,
        list(job.suites.values()),
        to=job.store_path,
        sites=section.sites,
        layers=section.layers,
        positions=section.positions,
        templates=section.templates or job.config.templates,
        dtype=section.dtype,
        batch_tokens=section.batch_tokens,
        compress=section.compress,
        shard_bytes=section.shard_bytes,
        seed=job.config.seed,
        part=job.part,
        resume=job.resume,
        progress=job.progress,
    )
    job.run.manifest["self_check"] = store.manifest["self_check"]
    job.run.save()
    store.close()


def stage_probe(job: RunContext) -> None:
    """Probe every label at every layer of both models: probes.csv, probe_drop.csv, and the fitted probes as files."""
    from taxlens.stages.probe.store_probes import probe_store

    section = job.config.probes
    with job.open_store() as store:
        found = probe_store(
            store,
            labels=section.labels,
            probe=section.probe,
            permutations=section.permutations,
            heads=section.heads,
            seed=job.config.seed,
            progress=job.progress,
        )
    job.run.write(PROBES, found.probes)
    job.run.write(PROBE_DROP, found.drops)
    found.save(job.run.emptied("probes"))


def stage_similarity(job: RunContext) -> None:
    """Compare the two models' activations: similarity.csv, spectra.csv, and what the directions found are and do."""
    from taxlens.analysis.directions.naming import Vocabulary
    from taxlens.stages.probe.probe_files import probe_directions, save_directions
    from taxlens.stages.similarity.store_similarity import similarity_store

    section, named = job.config.similarity, job.config.similarity.name_directions
    with job.open_store() as store:
        found = similarity_store(
            store,
            measures=section.measures,
            map_measures=section.map,
            map_rows=section.map_rows,
            spectra=section.spectra,
            name_top=named,
            probes=probe_directions(job.run.folder / "probes"),
            vocabulary=Vocabulary.of_model(job.pair.base) if section.spectra and named else None,
            heads=section.heads,
            seed=job.config.seed,
            progress=job.progress,
        )
    job.run.write(SIMILARITY, found.similarity)
    job.run.write(SPECTRA, found.spectra)
    job.run.write(DRIFT_POSITIONS, found.positions)
    job.run.write(DIRECTIONS, found.names)
    folder = job.run.emptied("directions")
    for template, site in found.found:
        directions = found.directions(template, site, top=named)
        if directions:
            save_directions(directions, folder / f"{template}_{site}.safetensors")
    job.run.write(DIRECTION_EFFECTS, _direction_effects(job, found))


def _direction_effects(job: RunContext, found: SimilarityTables) -> pd.DataFrame:
    """What the directions beyond the null are worth to the capability suites, in the templates that were captured."""
    from taxlens.stages.similarity.direction_tests import direction_test

    section = job.config.similarity
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
                items=section.test_items,
                metrics=job.config.tax.metrics,
                seed=job.config.seed,
                progress=job.progress,
            )
        )
    return DIRECTION_EFFECTS.join(frames)


def stage_attribute(job: RunContext) -> None:
    """Attribute every tax to weights: attribution*.csv, closure.csv, path.csv, and what the config asks for beside."""
    from taxlens.stages.attribute.attribute_run import attribute_run

    attribute_run(job)


def stage_diagnose(job: RunContext) -> None:
    """Say in which state each capability is: states.csv, evidence.csv, and the steering vectors that were measured."""
    from taxlens.analysis.state.diagnoses import diagnose_suites
    from taxlens.stages.diagnose.steering_run import write_steerings

    config, section = job.config, job.config.diagnose or DiagnoseSection()
    templates = {one.name: job.template_of(one) for one in config.suites}
    suites = [suite for several in job.by_template().values() for suite in several if suite.kind == "capability"]
    depth = job.pair.aligned.anatomy.n_layers
    layers = (
        {"auto": None, "all": range(depth)}.get(section.layers) if isinstance(section.layers, str) else section.layers
    )
    found = diagnose_suites(
        job.pair,
        suites,
        template=templates,
        layers=layers,
        items=None if section.items == "all" else section.items,
        relearn="if needed" if section.relearn else "never",
        effects=_effects_by_layer(job),
        draws=min(config.tax.bootstrap, 1000),
        seed=config.seed,
        progress=job.progress,
    )
    job.run.write(STATES, found.to_frame())
    job.run.write(EVIDENCE, found.evidence_frame())
    write_steerings(job, found.steerings(), templates)


def _effects_by_layer(job: RunContext) -> dict[str, dict[int, float]]:
    """Path effect on the probability by suite and layer, where the run has attributed it."""
    if not job.run.has("attribution"):
        return {}
    frame = job.run.read(ATTRIBUTION)
    frame = frame[(frame.level == "component") & (frame.method == "path") & (frame.metric == "probability")]
    summed = frame.groupby(["suite", "layer"])["effect"].sum()
    return {
        str(suite): {int(layer): float(value) for (_, layer), value in mine.items()}
        for suite, mine in summed.groupby(level="suite")
    }


def stage_frontier(job: RunContext) -> None:
    """Build plans from the attribution of one half of the items and measure them on the other: frontier.csv."""
    from taxlens.stages.frontier.frontier_run import measure_frontier

    measure_frontier(job)


def stage_figures(job: RunContext) -> None:
    """Draw every figure that the run's tables allow."""
    from taxlens.stages.figure_registry import draw_run

    draw_run(job.run, venue=job.config.figures.venue, width=job.config.figures.width)


def stage_report(job: RunContext) -> None:
    """Write report.html."""
    from taxlens.report.page import write_report

    write_report(job.run)


STAGE: dict[str, Callable[[RunContext], None]] = {
    "tax": stage_tax,
    "capture": stage_capture,
    "probe": stage_probe,
    "similarity": stage_similarity,
    "attribute": stage_attribute,
    "diagnose": stage_diagnose,
    "frontier": stage_frontier,
    "figures": stage_figures,
    "report": stage_report,
}
