"""The options of similarity: measures, the layer map, spectra, and what is done with the directions found."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from taxlens.stages.section import Section


class SimilaritySection(Section):
    """Which measures of representation similarity are computed, and what is done with the directions found."""

    engine_chooses: ClassVar[tuple[str, ...]] = ("map_rows", "test_items", "heads")

    measures: tuple[str, ...] = Field(
        default=("cka", "procrustes", "linear_r2", "drift"), description="measures of matched layers"
    )
    map: tuple[str, ...] = Field(
        default=("cka",), description="measures of every base layer against every aligned layer; []: none"
    )
    spectra: bool = Field(default=True, description="compute the gain and loss spectra and their directions")
    name_directions: int = Field(
        default=3, ge=0, le=10_000, description="directions beyond the null to name and keep, a spectrum and layer"
    )
    test_layers: int = Field(
        default=1, ge=0, description="layers whose directions are ablated in base and injected into aligned; 0: none"
    )
