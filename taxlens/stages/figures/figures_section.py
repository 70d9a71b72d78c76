"""The options of figures: where they will be printed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taxlens.core.vocabularies import VENUES, WIDTHS
from taxlens.stages.section import Section, registered


class FigureSection(Section):
    """Where the figures will be printed."""

    venue: Annotated[str, registered(tuple(VENUES), "venue")] = Field(
        default="neurips", description="venue whose page widths are used"
    )
    width: Annotated[str, registered(WIDTHS, "width")] = Field(default="page", description="a column or the page")
    which: Literal["leading", "all"] = Field(
        default="leading",
        description="leading: the main metric, and of figures for each suite those of the suites that lost most; all: every one",
    )
