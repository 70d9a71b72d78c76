"""Stitched models and the restoration profile: the base's blocks below a layer, the aligned model from there on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.hooks.paired_forward import replaced_input, twin
from taxlens.analysis.scoring.evaluator import MeasureFunction, Values, losses
from taxlens.core.errors import UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval, ratio_interval
from taxlens.core.stats.rounding import is_rounding

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair


@dataclass(frozen=True, slots=True, eq=False)
class StitchProfile(Result):
    """What is left of the tax when the base computes everything below a layer.

    Args:
        layers: cuts in rising order; cut l: base's embedding and blocks below l, aligned's from l on; cut
            n_layers: aligned's final norm and output head alone.
        left: (suite, metric) -> loss from base to each stitched model, float64 [items, cuts].
        taxes: (suite, metric) -> loss from base to aligned, float64 [items].
        groups: suite -> group of each item.
        draws: group-bootstrap draws.
        seed: its seed.
    """

    figure: ClassVar[str] = "restoration"

    layers: tuple[int, ...]
    left: Mapping[tuple[str, str], np.ndarray]
    taxes: Mapping[tuple[str, str], np.ndarray]
    groups: Mapping[str, np.ndarray]
    draws: int = 2000
    seed: int = 0

    def steps(self, suite: str, metric: str) -> np.ndarray:
        """What each stretch of the aligned model adds to the loss, float64 [items, cuts + 1]; sums to the tax exactly.

        The first column is what lies below the first cut, the last what lies above the last.
        """
        tax, left = self.taxes[suite, metric], self.left[suite, metric]
        ladder = np.column_stack([tax, left, np.zeros(len(tax))])
        return ladder[:, :-1] - ladder[:, 1:]

    def to_frame(self) -> pd.DataFrame:
        """One row a suite, metric and cut: restored share with its interval, and the step's effect with its own."""
        rows = []
        for (suite, metric), tax in self.taxes.items():
            steps = self.steps(suite, metric)
            options: dict[str, Any] = {"draws": self.draws, "seed": self.seed}
            for place, layer in enumerate(self.layers):
                returned = tax - self.left[suite, metric][:, place]
                step = mean_interval(steps[:, place + 1], self.groups[suite], **options)
                row = {
                    "suite": suite,
                    "metric": metric,
                    "layer": layer,
                    "tax": float(tax.mean()),
                    "restored": np.nan,
                    "low": np.nan,
                    "high": np.nan,
                }
                if not is_rounding(tax.mean()):
                    share = ratio_interval(returned, tax, self.groups[suite], **options)
                    row |= {"restored": share.value, "low": share.low, "high": share.high}
                rows.append(row | {"step": step.value, "step_low": step.low, "step_high": step.high})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        (suite, metric), steps = next((key, self.steps(*key).mean(axis=0)) for key in self.taxes)
        top = int(np.argmax(steps))
        where = f"below layer {self.layers[0]}" if top == 0 else f"from layer {self.layers[top - 1]}"
        return f"StitchProfile({suite} {metric}: largest step {steps[top]:+.4g} of {steps.sum():.4g}, {where})"


def stitched_profile(
    pair: ModelPair,
    measure: MeasureFunction,
    *,
    groups: Mapping[str, np.ndarray],
    layers: Sequence[int] | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> StitchProfile:
    """Inject the base's residual stream into the aligned model before each layer, and score it.

    restored(l) = (M(injected at l) - M(aligned)) / (M(base) - M(aligned)): 0 where the damage is all above the
    cut, 1 where it is all below. Injected at l, the aligned model is the stitched model with the base below l,
    so the steps from cut to cut telescope to the tax exactly. A step mixes two causes: what the layer's change
    does, and how well the aligned upper half reads the base's stream.

    Args:
        pair: the two checkpoints.
        measure: what scores a model.
        groups: suite name to the group of each item.
        layers: cuts, 0 to n_layers; by default all.
        draws: group-bootstrap draws.
        seed: its seed.
        progress: told of each cut.

    Returns:
        The profile; one pass of each model a cut.

    Raises:
        UsageError: a cut out of range.
    """
    depth = pair.aligned.anatomy.n_layers
    cuts = tuple(sorted(set(range(depth + 1) if layers is None else layers)))
    if not cuts or cuts[0] < 0 or cuts[-1] > depth:
        rows = [("got", list(cuts)), ("allowed", f"0 to {depth}")]
        raise UsageError(explain("a cut must lie between the model's layers.", rows))
    base = measure(pair.base.model)
    taxes = losses(measure(pair.aligned.model), base)
    left: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in taxes}
    with progress.task("stitch", total=len(cuts), unit="layers") as task:
        for cut in cuts:
            for key, value in losses(injected_values(pair, measure, cut), base).items():
                left[key].append(value)
            task.advance(1)
    columns = {key: np.column_stack(value) for key, value in left.items()}
    return StitchProfile(cuts, columns, taxes, groups, draws, seed)


def injected_values(pair: ModelPair, measure: MeasureFunction, cut: int) -> Values:
    """Score the aligned model with the base's residual stream put in before layer `cut` (n_layers: before the head)."""
    theirs, mine = (_entrance(loaded, cut) for loaded in (pair.base, pair.aligned))
    with twin(pair.aligned.model, pair.base.model, {"in": theirs}) as seen, ExitStack() as stack:

        def change(_stream: Any) -> Any:
            args, kwargs = seen.calls["in"]
            return args[0] if args else kwargs["hidden_states"]

        stack.enter_context(replaced_input(mine, change))
        return measure(pair.aligned.model)


def _entrance(loaded: Any, cut: int) -> Any:
    anatomy = loaded.anatomy
    if cut < anatomy.n_layers:
        return anatomy.blocks[cut]
    return loaded.model.get_submodule(anatomy.role("final_norm").name)
