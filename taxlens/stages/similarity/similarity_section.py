"""The options of similarity: measures, the layer map, spectra, and what is done with the directions found."""

from __future__ import annotations

from pydantic import Field

from taxlens.stages.section import Section


class SimilaritySection(Section):
    """Which measures of representation similarity are computed, and what is done with the directions found."""

    measures: tuple[str, ...] = Field(
        default=("cka", "procrustes", "linear_r2", "drift"), description="measures of matched layers"
    )
    map: tuple[str, ...] = Field(
        default=("cka",), description="measures of every base layer against every aligned layer; []: none"
    )
    map_rows: int = Field(default=4096, ge=4, le=2**20, description="most rows of the layer map")
    heads: bool = Field(default=True, description="compare sites that have heads head by head too")
    spectra: bool = Field(default=True, description="compute the gain and loss spectra and their directions")
    name_directions: int = Field(
        default=3, ge=0, le=10_000, description="directions beyond the null to name and keep, a spectrum and layer"
    )
    test_layers: int = Field(
        default=1, ge=0, description="layers whose directions are ablated in base and injected into aligned; 0: none"
    )
    test_items: int = Field(default=64, ge=2, description="most items a suite of that test")
