"""The features stage: which features of the base were lost, and what each cost."""

from __future__ import annotations

from taxlens.analysis.features.feature_tables import FEATURE_TABLES
from taxlens.core.lazy import Lazy
from taxlens.stages.features.features_section import FeaturesSection
from taxlens.stages.stage import Figure, Stage, Words

_DRAWINGS = "taxlens.stages.features.features_drawings"
_WORDS = "taxlens.stages.features.features_words"

FEATURES_STAGE = Stage(
    "features",
    "Account for the tax in features.",
    compute=Lazy("taxlens.stages.features.features_run:stage_features"),
    shared=True,
    section=FeaturesSection,
    key="features",
    always=False,
    tables=FEATURE_TABLES,
    summary=("features_closure",),
    figures=(
        Figure(
            "features", ("features", "features_closure"), Lazy(f"{_DRAWINGS}:features_drawings"), group="Features",
            files=("features",), first=("features_SUITE_*",),
        ),
        Figure(
            "latent", ("features", "features_latents", "features_names"), Lazy(f"{_DRAWINGS}:latent_drawings"),
            optional=("features_contexts",), group="Features", files=("latent",),
        ),
        Figure(
            "feature_map", ("features", "features_latents"), Lazy(f"{_DRAWINGS}:map_drawings"), group="Features",
            files=("feature_map",),
        ),
        Figure("given_back", ("features_controls",), Lazy(f"{_DRAWINGS}:controls_drawings"), group="Features"),
    ),
    words=Words(
        clauses=Lazy(f"{_WORDS}:features_clauses"),
        limits=Lazy(f"{_WORDS}:features_limits"),
        terminal=Lazy(f"{_WORDS}:features_terminal"),
        methods=Lazy(f"{_WORDS}:features_methods"),
        latex=Lazy(f"{_WORDS}:features_latex"),
    ),
    check=Lazy("taxlens.stages.features.features_run:check_features"),
    cost=Lazy("taxlens.stages.features.features_run:features_cost"),
)  # fmt: skip
