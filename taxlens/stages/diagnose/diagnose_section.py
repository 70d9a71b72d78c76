"""The options of a diagnosis: where the state of a capability is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from taxlens.stages.section import Count, Place, Section


class DiagnoseSection(Section):
    """Where the state of a capability is read: the residual stream after a block."""

    layers: Literal["auto", "all"] | tuple[Place, ...] = Field(
        default="auto", description="blocks, all, or auto: five, refined where the damage appears"
    )
    items: Literal["all"] | Count = Field(default="all", description="most items a suite")
    relearn: bool | Literal["always", "never", "if needed"] = Field(
        default=True, description="where a capability looks erased, see whether a little training brings it back"
    )

    @model_validator(mode="before")
    @classmethod
    def _sites_is_no_option(cls, values: Any) -> Any:
        """`sites` once was a key; what it asked for beyond resid_post was never done."""
        if not isinstance(values, dict) or "sites" not in values:
            return values
        if list(values["sites"] or ()) not in ([], ["resid_post"]):
            raise ValueError("the residual stream after a block (resid_post) alone; leave sites out")
        return {key: value for key, value in values.items() if key != "sites"}
