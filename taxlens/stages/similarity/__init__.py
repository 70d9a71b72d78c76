"""The similarity stage: how alike activations are, and what the directions that weakened are."""

from __future__ import annotations

from taxlens.core.lazy import Lazy
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
from taxlens.stages.stage import Figure, Stage, Words

_GROUP = "Similarity and spectra"
_DRAWINGS = "taxlens.stages.similarity.similarity_drawings"
_PLANES = "taxlens.stages.similarity.plane_figures"

SIMILARITY_STAGE = Stage(
    "similarity",
    "Compare the two models' activations.",
    compute=Lazy("taxlens.stages.similarity.similarity_run:stage_similarity"),
    reads=("tax.metrics",),
    section=SimilaritySection,
    key="similarity",
    needs=("capture",),
    uses=("probe",),
    tables=(
        SIMILARITY, SPECTRA, DRIFT_POSITIONS, DIRECTIONS, DIRECTION_EFFECTS, ACTIVATION_PLANE, REFUSAL_PROJECTIONS,
        REFUSAL_DIRECTION,
    ),
    figures=(
        Figure("similarity", ("similarity",), Lazy(f"{_DRAWINGS}:similarity_drawings"), group=_GROUP),
        Figure(
            "similarity_map", ("similarity",), Lazy(f"{_DRAWINGS}:similarity_map_drawings"), group=_GROUP, each=True
        ),
        Figure("directions", ("directions",), Lazy(f"{_DRAWINGS}:directions_drawings"), group=_GROUP, each=True, asked=True),
        Figure(
            "direction_effects", ("direction_effects",), Lazy(f"{_DRAWINGS}:direction_effects_drawings"), group=_GROUP
        ),
        Figure(
            "activation_plane", ("activation_plane",), Lazy(f"{_PLANES}:plane_drawings"), group=_GROUP, each=True,
            together=True,
        ),
        Figure(
            "refusal_direction", ("refusal_projections", "refusal_direction"), Lazy(f"{_PLANES}:refusal_drawings"), group=_GROUP,
            each=True, together=True,
        ),
        Figure("spectra", ("spectra",), Lazy(f"{_DRAWINGS}:spectra_drawings"), group=_GROUP, each=True),
    ),
    words=Words(
        limits=Lazy("taxlens.stages.similarity.similarity_words:similarity_limits"),
        methods=Lazy("taxlens.stages.similarity.similarity_words:similarity_methods"),
    ),
    check=Lazy("taxlens.stages.similarity.similarity_check:check_similarity"),
    cost=Lazy("taxlens.stages.similarity.similarity_cost:similarity_cost"),
)  # fmt: skip
