"""A section of the config: frozen, checked, every key described; and the words that several sections share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taxlens.core.errors import UsageError, one_of
from taxlens.core.lazy import Lazy


def registered(names: Lazy, what: str) -> AfterValidator:
    """Return a check that a value is a name of a registry, which is imported when a value is checked."""

    def check(value: str) -> str:
        try:
            return one_of(value, tuple(names()), what=what)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check)


Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head_z", "mlp_post"]
Dtype = Literal["float32", "float16", "bfloat16"]
Template = Literal["plain", "chat"]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class Section(BaseModel):
    """Base of sections: a key that is not declared is refused, and so are infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)
