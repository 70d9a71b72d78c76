"""The path through intermediate checkpoints: base -> ... -> aligned, one straight segment after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.models.pair import make_pair
from taxlens.analysis.path.assembly import joined_apart
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.attribution import Attribution, SuiteEffects
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel


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

    def whole(self) -> Attribution:
        """The polyline as one attribution of the last checkpoint against the first.

        Effects, taxes and token effects are summed over segments, gradients too; t runs over all segments, equally
        long. Singular triples belong to a segment and are left out. It closed if every segment did.
        """
        first = self.segments[0]
        suites = {name: _joined([s.suites[name] for s in self.segments], self.names) for name in first.suites}
        beside = tuple(
            {name: _joined([s.beside[i][name] for s in self.segments], self.names) for name in walked}
            for i, walked in enumerate(first.beside)
        )
        fallbacks = tuple(dict.fromkeys(name for s in self.segments for name in s.fallbacks))
        fits = [s.walkability for s in self.segments if s.walkability is not None]
        fit = max(fits, key=lambda one: one.barrier) if fits else None
        return dataclasses.replace(first, suites=suites, beside=beside, fallbacks=fallbacks, walkability=fit)

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
        UsageError: fewer than two checkpoints, or a metric that does not add over segments.
        PairMismatchError: two neighbours that cannot be compared.

    Example:
        >>> attribute_polyline([base, sft, preference], facts).effects("facts", "nll")   # doctest: +SKIP

    References:
        Loss change allocation, arXiv 1909.01440: the same account along a whole training.
    """
    if len(models) < 2:
        raise UsageError(explain("a polyline needs at least two checkpoints.", [("got", len(models))]))
    if "kl" in options.get("metrics", ()):
        fix = "leave kl out, or walk the straight path"
        raise UsageError(explain("kl is taken to a segment's own start, so that segments do not add.", (), fix))
    called = list(names) or [model.source for model in models]
    segments = [attribute(make_pair(a, b), suites, **options) for a, b in pairwise(models)]
    steps = tuple(f"{a} -> {b}" for a, b in pairwise(called))
    return Polyline(tuple(segments), steps)


def _joined(parts: Sequence[SuiteEffects], names: Sequence[str]) -> SuiteEffects:
    """One suite's effects summed over segments; the levels whose units are the same in all of them."""
    first, count = parts[0], len(parts)
    levels = [level for level in first.units if all(part.units[level] == first.units[level] for part in parts)]
    keys = [key for key in first.values if key[1] in levels and key[1] != "singular"]
    tokens = first.tokens
    if tokens is not None:
        values = {m: sum(part.tokens.values[m] for part in parts if part.tokens is not None) for m in tokens.values}
        tokens = dataclasses.replace(tokens, values=values)
    kept = [slice(0, None)] + [slice(1, None)] * (count - 1)  # a segment starts where the one before ended
    return dataclasses.replace(
        first,
        values={key: np.sum([part.values[key] for part in parts], axis=0) for key in keys},
        errors={key: np.sum([part.errors[key] for part in parts], axis=0) for key in keys},
        taxes={m: np.sum([part.taxes[m] for part in parts], axis=0) for m in first.taxes},
        tokens=tokens,
        times=np.concatenate([(part.times[k] + n) / count for n, (part, k) in enumerate(zip(parts, kept))]),
        profile={m: np.concatenate([part.profile[m][k] for part, k in zip(parts, kept)]) for m in first.profile},
        missed=np.sum([part.missed for part in parts], axis=0),
        moved=np.sum([part.moved for part in parts], axis=0),
        gradients=sum(part.gradients for part in parts),
        forwards=sum(part.forwards for part in parts),
        seconds=sum(part.seconds for part in parts),
        closed=all(part.closed for part in parts),
        reason="; ".join(f"{name}: {part.reason}" for name, part in zip(names, parts) if part.reason),
        grazes={m: sum(part.grazes[m] for part in parts) for m in first.grazes},
        rewalked=sum(part.rewalked for part in parts),
        apart=joined_apart(parts, lambda several: np.sum(several, axis=0)),
        causes=tuple(dict.fromkeys(cause for part in parts for cause in part.causes)),
    )
