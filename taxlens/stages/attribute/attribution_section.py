"""The options of attribution: metrics, levels, tolerance, further methods, and what says how to read the effects."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from taxlens.core.lazy import Lazy
from taxlens.core.vocabularies import LEVELS
from taxlens.stages.section import Count, Place, Section, registered

_METRICS = Lazy("taxlens.analysis.scoring.metrics:chained_metrics")
AttributedMetric = Annotated[str, registered(_METRICS, "metric of the attribution")]
Method = Annotated[str, registered(Lazy("taxlens.analysis.interventions.method_registry:method_names"), "method")]
Level = Annotated[str, registered(LEVELS, "level")]


class AttributionSection(Section):
    """The weight path: metrics, levels, tolerance, and further methods by name."""

    engine_chooses: ClassVar[tuple[str, ...]] = (
        "leading",
        "controls",
        "batch_tokens",
        "neurons",
        "patch_items",
        "patch_positions",
    )

    metrics: tuple[AttributedMetric, ...] = Field(
        default=("accuracy", "probability", "nll"),
        min_length=1,
        description="metrics whose tax is attributed; kl is to the base at the gold choice's tokens",
    )
    levels: tuple[Level, ...] = Field(
        default=("component", "head", "singular"), min_length=1, description="units of the network"
    )
    tolerance: float = Field(
        default=0.01, gt=0, lt=1, description="share of the tax within which effects must have settled"
    )
    max_gradients: int = Field(
        default=32, ge=2, le=100_000, description="most models along the path that are differentiated"
    )
    items: Literal["all"] | Count = Field(default="all", description="most items a suite")
    methods: tuple[Method, ...] = Field(default=("path",), min_length=1, description="attribution methods")
    recompute: bool = Field(
        default=False, description="recompute blocks in the backward pass, for prompts too long for the memory"
    )
    reading: int = Field(
        default=2, ge=0, description="singular triples a suite to read: what they write and read; 0: none"
    )
    null_draws: int = Field(
        default=0, ge=0, le=10_000, description="attributions of shuffled changes of equal spectrum"
    )
    patches: int = Field(
        default=0, ge=0, description="leading components, and heads, to patch in both directions; as many random ones"
    )
    screen: int = Field(
        default=0, ge=0, description="attribution patching of every part, so many verified by full patching; 0: none"
    )
    stitch: Literal["all"] | tuple[Place, ...] = Field(
        default=(), description="layers at which the restoration profile is cut, or all; []: none"
    )
