"""The options of a capture: which activations are kept, and how they are stored."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from taxlens.stages.section import Dtype, Place, Section, SiteName, Template


class CaptureSection(Section):
    """Which activations are kept."""

    engine_chooses: ClassVar[tuple[str, ...]] = ("batch_tokens",)

    sites: tuple[SiteName, ...] = Field(
        default=("resid_post",), min_length=1, description="places in a block whose activations are kept"
    )
    layers: Literal["all"] | tuple[Place, ...] = Field(default="all", description="blocks, from 0, or all")
    positions: str = Field(
        default="last", description="token positions: last, all, mean, or what docs/capture.md lists"
    )
    templates: tuple[Template, ...] | None = Field(default=None, description="prompt templates; null: the config's")
    dtype: Dtype = Field(default="float32", description="type of the stored numbers")
    compress: Literal["gzip"] | None = Field(default=None, description="compression of the store; null: none")
    shard_bytes: int = Field(
        default=256 * 2**20, ge=1, description="most bytes of one file of the store; parts end where files end"
    )
