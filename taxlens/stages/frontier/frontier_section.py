"""The options of the frontier: which plans are built, and how they are measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taxlens.core.lazy import Lazy
from taxlens.stages.section import Count, PlanUnit, Section, Share, registered

OrderName = Annotated[str, registered(Lazy("taxlens.analysis.frontier.orders:order_names"), "order")]


class FrontierSection(Section):
    """Which plans are built and measured."""

    benefit: str | None = Field(
        default=None, description="suite of what alignment was for; null: the first of kind benefit"
    )
    against: str | None = Field(
        default=None, description="suite of harmless prompts that the benefit is measured against"
    )
    unit: PlanUnit = Field(default="singular", description="what plans undo")
    shares: tuple[Share, ...] = Field(
        default=(0.01, 0.025, 0.05), min_length=1, description="shares of the units that plans undo"
    )
    draws: int = Field(default=20, ge=1, le=10_000, description="random plans of each share")
    orders: tuple[OrderName, ...] = Field(
        default=("path", "one_gradient", "magnitude", "smallest", "random", "uniform"),
        min_length=1,
        description="how the units of plans are chosen",
    )
    suites: tuple[str, ...] | None = Field(
        default=None, description="capability suites whose tax is to be returned; null: all that lost"
    )
    max_gradients: int | None = Field(
        default=None, ge=1, description="of its attribution; null: that of the section attribution"
    )
    draw_shares: tuple[Share, ...] | None = Field(
        default=None, description="shares at which random plans are drawn; null: all"
    )
    items: Literal["all"] | Count = Field(default="all", description="most held-out items a suite")
    train_items: Literal["all"] | Count = Field(
        default="all", description="most items a suite that plans are chosen on"
    )
    leave_out: bool = Field(default=True, description="also choose without each suite and measure on it")
    generate: int = Field(
        default=0, ge=0, description="prompts of each kind for the benefit by generation; 0: log-odds only"
    )
    keeps: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        default=(),
        description="further shares of the benefit that path, one_gradient and per_layer plans must keep; above 1: more than it is",
    )
    generate_plans: tuple[str, ...] | None = Field(
        default=None, description="plans answered by generation; null: those of path and one_gradient"
    )
    budget_minutes: float | None = Field(
        default=40.0, gt=0, le=1e6, description="minutes for all plans together; null: no such bound"
    )
