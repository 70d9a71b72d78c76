"""The options of probes: which labels are probed, and by what."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from taxlens.stages.section import Section


class ProbeSection(Section):
    """Which labels are probed, and by what."""

    engine_chooses: ClassVar[tuple[str, ...]] = ("heads",)

    labels: Literal["all"] | tuple[str, ...] = Field(
        default="all", description="labels to probe: names, or all that the items carry, correct among them"
    )
    probe: Literal["ridge", "logistic", "diff_of_means", "mlp", "lda", "mdl"] = Field(
        default="ridge", description="kind of probe"
    )
    permutations: int = Field(default=199, ge=0, le=100_000, description="permutations behind each p")
