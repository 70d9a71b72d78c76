"""The options of figures: where they will be printed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taxlens.stages.section import Section


class FigureSection(Section):
    """Where the figures will be printed."""

    venue: Literal["neurips", "iclr", "icml", "acl", "tmlr", "aaai"] = Field(
        default="neurips", description="venue whose page widths are used"
    )
    width: Literal["column", "page"] = Field(default="page", description="a column or the page")
