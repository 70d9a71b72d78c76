"""The tax of every checkpoint of a training, or of every seed of a recipe, against one base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from taxlens.analysis.tax.tax import Tax
from taxlens.core.errors import one_of
from taxlens.core.result import Result


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointTaxes(Result):
    """One tax a checkpoint, in their order; the last is the aligned model's.

    Args:
        taxes: checkpoint to its tax against the base.
        kind: "chain" (checkpoints of one training) or "seeds" (runs of one recipe).

    Example:
        >>> taxes = load_pair(base, [sft, dpo]).tax(facts)                               # doctest: +SKIP
        >>> taxes["sft"].interval("facts")                                               # doctest: +SKIP
    """

    figure: ClassVar[str] = ""

    taxes: Mapping[str, Tax]
    kind: str = "chain"

    @property
    def last(self) -> Tax:
        """The aligned model's tax."""
        return list(self.taxes.values())[-1]

    def __getitem__(self, checkpoint: str) -> Tax:
        """The tax of one checkpoint.

        Raises:
            UsageError: there is no checkpoint of this name; the names are listed.
        """
        return self.taxes[one_of(checkpoint, tuple(self.taxes), what="checkpoint")]

    def to_frame(self) -> pd.DataFrame:
        """Rows of tax.csv for every checkpoint, with a column `checkpoint` before them."""
        frames = []
        for name, tax in self.taxes.items():
            frame = tax.to_frame()
            frame.insert(0, "checkpoint", name)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        parts = "; ".join(f"{name}: {tax!r}" for name, tax in self.taxes.items())
        return f"CheckpointTaxes of {len(self.taxes)} ({self.kind}): {parts}"
