"""The attribute stage: which weights each tax comes from."""

from __future__ import annotations

from taxlens.analysis.interventions.effect_tables import (
    ATTRIBUTION,
    ATTRIBUTION_ITEMS,
    ATTRIBUTION_TOKENS,
    CLOSURE,
    CLOSURE_SEGMENTS,
    PATCHES,
    PATH,
    RESTORATION,
    SCREEN,
    SEGMENTS,
)
from taxlens.analysis.readings.reading_tables import (
    AGREEMENT,
    ATTRIBUTION_NULL,
    ATTRIBUTION_READING,
    ATTRIBUTION_SEEDS,
    ATTRIBUTION_UNITS,
)
from taxlens.analysis.weights.export_tables import ATTRIBUTION_NAMES
from taxlens.core.lazy import Lazy
from taxlens.stages.attribute.attribution_section import AttributionSection
from taxlens.stages.stage import Figure, Stage, Words

_DRAWINGS = "taxlens.stages.attribute.attribute_drawings"

ATTRIBUTE_STAGE = Stage(
    "attribute",
    "Attribute the tax to weights.",
    compute=Lazy("taxlens.stages.attribute.attribute_run:stage_attribute"),
    shared=True,
    reads=("tax.bootstrap",),
    section=AttributionSection,
    key="attribution",
    tables=(
        ATTRIBUTION, ATTRIBUTION_ITEMS, ATTRIBUTION_TOKENS, CLOSURE, PATH, RESTORATION, ATTRIBUTION_UNITS,
        ATTRIBUTION_READING, ATTRIBUTION_NAMES, AGREEMENT, ATTRIBUTION_NULL, PATCHES, SCREEN, SEGMENTS, CLOSURE_SEGMENTS,
        ATTRIBUTION_SEEDS,
    ),
    summary=("closure",),
    figures=(
        Figure(
            "attribution", ("attribution", "closure"), Lazy(f"{_DRAWINGS}:attribution_drawings"), group="Attribution",
            first=("attribution_SUITE_*",), each=True,
        ),
        Figure(
            "layer_profile", ("attribution",), Lazy(f"{_DRAWINGS}:layer_profile_drawings"), group="Attribution",
            optional=("probe_drop", "similarity", "restoration"), first=("layer_profile_SUITE",), each=True,
        ),
        Figure(
            "suite_matrix", ("attribution",), Lazy(f"{_DRAWINGS}:suite_matrix_drawings"), group="Attribution",
            first=("suite_matrix",),
        ),
        Figure("methods", ("attribution",), Lazy(f"{_DRAWINGS}:methods_drawings"), group="Attribution", each=True),
        Figure(
            "maps", ("attribution",), Lazy(f"{_DRAWINGS}:maps_drawings"), group="Attribution",
            files=("layer_map", "head_map"), each=True,
        ),
        Figure("tokens", ("attribution_tokens",), Lazy(f"{_DRAWINGS}:tokens_drawings"), group="Tokens", each=True),
        Figure("path", ("path",), Lazy(f"{_DRAWINGS}:profile_drawings"), group="Attribution"),
        Figure(
            "restoration", ("restoration",), Lazy(f"{_DRAWINGS}:restoration_drawings"), group="Attribution",
            files=("restoration_profile",),
        ),
    ),
    words=Words(
        clauses=Lazy("taxlens.stages.attribute.attribute_words:attribute_clauses"),
        limits=Lazy("taxlens.stages.attribute.attribute_words:attribute_limits"),
        terminal=Lazy("taxlens.stages.attribute.attribute_words:attribute_terminal"),
        methods=Lazy("taxlens.stages.attribute.attribute_words:attribute_methods"),
        latex=Lazy("taxlens.stages.attribute.attribute_words:attribute_latex"),
    ),
    check=Lazy("taxlens.stages.attribute.attribute_check:check_attribute"),
    cost=Lazy("taxlens.stages.attribute.attribute_cost:attribute_cost"),
)  # fmt: skip
