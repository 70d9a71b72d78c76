"""What the options of similarity must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.similarity.similarity_section import SimilaritySection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_similarity(context: CheckContext, section: SimilaritySection) -> None:
    """Refuse measures that are not known.

    Raises:
        ConfigError: naming the key and the measures that there are.
    """
    from taxlens.probes.similarity.measures import MEASURES

    known = ["drift", *(name for name in MEASURES if name != "drift")]
    context.each_of("similarity.measures", section.measures, known, what="measure")
    context.each_of("similarity.map", section.map, list(MEASURES), what="measure")
