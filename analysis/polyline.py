"""The path through intermediate checkpoints: base -> ... -> aligned, one straight segment after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.pair import make_pair
from taxlens.analysis.attribution import Attribution
from taxlens.analysis.path import attribute
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.activations.loading import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Polyline(Result):
    """Attributions of consecutive checkpoints; their taxes and component effects add up to the whole pair's.

    Where training bends, the straight line from first to last crosses weights that no training visited; the
    polyline follows the training. Singular triples belong to a segment and do not add.

    Args:
        segments: one attribution a step, in order.
        names: what the steps are called ("base -> sft").
    """

    figure: ClassVar[str] = "attribution"

    segments: tuple[Attribution, ...]
    names: tuple[str, ...]

    def effects(self, suite: str, metric: str, level: str = "component") -> tuple[tuple[str, ...], np.ndarray]:
        """Unit names and effects summed over segments, float64 [items, units]; not for singular triples.

        Raises:
            UsageError: at the singular level, whose units differ from segment to segment.
        """
        if level == "singular":
            fix = "ask a segment: polyline.segments[i].effects(...)"
            raise UsageError(explain("singular triples of different segments do not add.", (), fix))
        found = [segment.effects(suite, metric, level) for segment in self.segments]
        return found[0][0], np.sum([values for _, values in found], axis=0)

    def taxes(self, suite: str, metric: str) -> np.ndarray:
        """Tax of each item from first to last checkpoint, float64 [items]."""
        return np.sum([segment.taxes(suite, metric) for segment in self.segments], axis=0)

    def to_frame(self) -> pd.DataFrame:
        """Rows of attribution.csv for every segment, with a column `segment`."""
        return self._framed("to_frame")

    def closure_frame(self) -> pd.DataFrame:
        """Rows of closure.csv for every segment, with a column `segment`."""
        return self._framed("closure_frame")

    def path_frame(self) -> pd.DataFrame:
        """Rows of path.csv along the whole polyline: t runs from 0 to 1 over all segments, equally long."""
        count = len(self.segments)
        frames = []
        for number, segment in enumerate(self.segments):
            frame = segment.path_frame()
            frames.append(frame.assign(t=(frame["t"] + number) / count, segment=self.names[number]))
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        parts = "; ".join(f"{name}: {segment!r}" for name, segment in zip(self.names, self.segments))
        return f"Polyline of {len(self.segments)} segments: {parts}"

    def _framed(self, method: str) -> pd.DataFrame:
        frames = [getattr(segment, method)().assign(segment=name) for name, segment in zip(self.names, self.segments)]
        return pd.concat(frames, ignore_index=True)


def attribute_polyline(
    models: Sequence[LoadedModel], suites: Suite | Sequence[Suite], *, names: Sequence[str] = (), **options: Any
) -> Polyline:
    """Attribute the tax along a list of checkpoints of one training, segment by segment.

    Args:
        models: base first, aligned last, at least one step between them.
        suites: one suite or several.
        names: of the checkpoints; by default their sources.
        options: as for `path.attribute`.

    Raises:
        UsageError: fewer than two checkpoints.
        PairMismatchError: two neighbours that cannot be compared.

    Example:
        >>> attribute_polyline([base, sft, preference], facts).effects("facts", "nll")   # doctest: +SKIP

    References:
        Loss change allocation, arXiv 1909.01440: the same account along a whole training.
    """
    if len(models) < 2:
        raise UsageError(explain("a polyline needs at least two checkpoints.", [("got", len(models))]))
    called = list(names) or [model.source for model in models]
    segments = [attribute(make_pair(a, b), suites, **options) for a, b in pairwise(models)]
    steps = tuple(f"{a} -> {b}" for a, b in pairwise(called))
    return Polyline(tuple(segments), steps)
