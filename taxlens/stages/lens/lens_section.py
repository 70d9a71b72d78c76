"""The options of the logit lens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taxlens.stages.section import Count, Section


class LensSection(Section):
    """What each layer's stream would answer if the model ended there."""

    items: Literal["all"] | Count = Field(
        default=200, description="most items a suite, whole groups, drawn with the seed"
    )
