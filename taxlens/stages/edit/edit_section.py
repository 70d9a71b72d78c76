"""The options of the comparison of editors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taxlens.core.lazy import Lazy
from taxlens.stages.section import Count, PlanUnit, Section, registered

EditorName = Annotated[str, registered(Lazy("taxlens.analysis.editors.editor_names:editor_names"), "editor")]
Kept = Annotated[float, Field(gt=0, le=2)]


class EditSection(Section):
    """Which editors are compared, and what has to stay."""

    harm: str | None = Field(default=None, description="suite of harmful prompts; null: the first of kind benefit")
    harmless: str | None = Field(default=None, description="suite of harmless prompts; it has to be named")
    suites: tuple[str, ...] | None = Field(
        default=None, description="capability suites whose tax is to be returned; null: all that lost"
    )
    editors: tuple[EditorName, ...] = Field(
        default=("repair", "joint", "path", "one_gradient", "relearn", "interpolation"),
        min_length=1,
        description="the editors",
    )
    tries: Annotated[int, Field(ge=1, le=100)] = Field(default=3, description="settings that every editor may try")
    search: Annotated[int, Field(ge=10, le=10_000)] = Field(
        default=200, description="trials of an editor that searches its settings (heretic), all before validation"
    )
    keep: dict[Literal["harm", "harmless", "gap"], Kept] = Field(
        default={"harm": 0.95}, description="shares of aligned's that the recommended editor has to keep"
    )
    returned: float | None = Field(
        default=None, gt=0, le=1, description="share of the tax that it has to return; null: as much as can be"
    )
    kl: float | None = Field(
        default=None, gt=0, description="most divergence from the base on harmless answers, nats a token; null: any"
    )
    certified: bool = Field(default=False, description="whether interval ends have to meet `keep`, less .05")
    unit: PlanUnit = Field(default="singular", description="units of the update")
    items: Literal["all"] | Count = Field(default="all", description="most held-out items a suite")
    train_items: Literal["all"] | Count = Field(default="all", description="most items a suite to fit on")
    generate: int = Field(
        default=0, ge=0, le=4096, description="tokens of an answer by generation; 0: choices only, else 100 or more"
    )
