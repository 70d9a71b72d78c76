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
    which: Literal["leading", "all"] = Field(
        default="leading",
        description="leading: the main metric, and of figures for each suite those of the suites that lost most; all: every one",
    )
