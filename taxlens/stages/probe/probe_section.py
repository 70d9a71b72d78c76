"""The options of probes: which labels are probed, and by what."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from taxlens.core.vocabularies import PROBES
from taxlens.stages.section import Section, registered


class ProbeSection(Section):
    """Which labels are probed, and by what."""

    engine_chooses: ClassVar[tuple[str, ...]] = ("heads",)

    labels: Literal["all"] | tuple[str, ...] = Field(
        default="all", description="labels to probe: names, or all that the items carry, correct among them"
    )
    probe: Annotated[str, registered(PROBES, "kind of probe")] = Field(default="ridge", description="kind of probe")
    permutations: int = Field(default=199, ge=0, le=100_000, description="permutations behind each p")
