"""The options of the tax: metrics, intervals, and the taxes beside accuracy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taxlens.core.lazy import Lazy
from taxlens.core.vocabularies import INTERVALS
from taxlens.stages.section import Section, Template, registered

Metric = Annotated[str, registered(Lazy("taxlens.analysis.scoring.metrics:scored_metrics"), "metric of the tax")]


class TaxSection(Section):
    """How the tax is measured."""

    metrics: tuple[Metric, ...] = Field(
        default=("accuracy", "probability", "nll"), min_length=1, description="metrics in which the tax is measured"
    )
    bootstrap: int = Field(default=2000, ge=100, le=1_000_000, description="draws of every group bootstrap of the run")
    interval: Annotated[str, registered(INTERVALS, "kind of interval")] = Field(
        default="percentile", description="kind of bootstrap interval"
    )
    margin: float = Field(
        default=0.02, gt=0, lt=1, description="half width of what counts as no tax, for metrics of 0..1"
    )
    prior: bool = Field(
        default=False, description="also measure the tax after PMI, and the shift of the choices' prior"
    )
    generate: tuple[str, ...] = Field(
        default=(), description="suites that both models answer: exact match, refusals, length, time, KL by position"
    )
    generate_items: int = Field(
        default=24, ge=0, description="most items that are answered of a suite whose generate is null; 0: none"
    )
    generate_templates: tuple[Template, ...] | None = Field(
        default=None, description="templates of these answers; null: each suite in the template of its attribution"
    )
    judge_address: str = Field(
        default="",
        description="address of a chat-completions server that judges which answers refuse; blank: the package's rule, "
        "and nothing is sent",
    )
    judge_model: str = Field(default="", description="what that server calls its model")
    max_new_tokens: int = Field(default=32, ge=1, le=100_000, description="tokens at which an answer is cut")
    samples: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="continuations a prompt for versatility; 0: none, else at least 2; null: 4 where suites say generate or null",
    )
