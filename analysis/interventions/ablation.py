"""Is a direction what the suite needs? Take it out of base; put base's back into aligned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from taxlens.activations.hooks.paired_forward import replaced_output, twin
from taxlens.activations.items.items import Suite
from taxlens.activations.models.pair import ModelPair
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.interventions.steering import Ablation
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.scoring.metrics import metric_of
from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval

DRAWS = 5


@dataclass(frozen=True, slots=True)
class DirectionEffect:
    """The effect of one intervention on one metric; positive is loss.

    `random` is the mean effect of the same intervention along random directions, `random_extreme` the
    largest of them (for injection the smallest, since there the hope is a negative effect).
    """

    intervention: str
    metric: str
    value: float
    low: float
    high: float
    random: float
    random_extreme: float
    n_items: int
    n_groups: int


@dataclass(frozen=True, slots=True)
class DirectionEffects(Result):
    """What taking a subspace out of base costs, and what putting base's into aligned returns."""

    suite: str
    template: str
    address: str
    rank: int
    effects: tuple[DirectionEffect, ...]

    figure: ClassVar[str] = "direction_effects"

    def to_frame(self) -> pd.DataFrame:
        """Return one row an intervention and metric: value, low, high, random, random_extreme, counts."""
        frame = pd.DataFrame([asdict(effect) for effect in self.effects])
        frame.insert(0, "suite", self.suite)
        frame.insert(1, "template", self.template)
        return frame

    def __repr__(self) -> str:
        parts = [
            f"{e.intervention} {e.metric} {e.value:+.4g} [{e.low:.4g}, {e.high:.4g}] (random {e.random:+.2g})"
            for e in self.effects
        ]
        return f"DirectionEffects({self.address}, rank {self.rank}: {'; '.join(parts)})"


def direction_effects(
    pair: ModelPair,
    directions: list[Direction],
    suite: Suite,
    *,
    centre: np.ndarray,
    template: str = "plain",
    metrics: tuple[str, ...] = ("accuracy", "probability"),
    draws: int = DRAWS,
    batch_tokens: int = 4096,
    seed: int = 0,
) -> DirectionEffects:
    """Return what a subspace is worth to a suite, by ablation in base and injection in aligned.

    `ablate`: base with its stream put at `centre` along the directions after their block, at every
    position: loss if base uses them. `inject`: aligned with its coordinates along the directions replaced by
    those of base on the same tokens: a negative loss (a gain) if their weakening is why points were lost.
    Both beside random subspaces of the same rank: an effect counts where it clears them. A direction that
    probes read need not be one that the model uses; this test tells.

    Args:
        pair: base and aligned.
        directions: at one address `resid_post.L`.
        suite: items with choices.
        centre: [d] mean of base's stream at that address.
        template: "plain" or "chat".
        metrics: names of `metrics.item_metrics`.
        draws: random subspaces.
        batch_tokens: padded tokens in a batch.
        seed: of the random subspaces and the bootstrap.

    Raises:
        UsageError: no direction, several addresses, another site, or a width that is not the model's.
    """
    basis, layer = _basis(directions, pair.base.anatomy.d_model, pair.base.anatomy.n_layers)
    rng = np.random.default_rng(seed)
    subspaces = [basis]
    for _ in range(draws):
        subspaces.append(np.linalg.qr(rng.normal(size=basis.shape[::-1]))[0].T)

    def score(loaded: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        scores = score_suite(
            loaded.model,
            suite,
            prompting=one_prompting(pair, suite, template),
            batch_tokens=batch_tokens,
            share_prefix=False,
        )
        return scores.metrics(metrics), scores.groups

    made = []
    for name, loaded, apply in (
        ("ablate", pair.base, lambda part: Ablation(layer, part, np.asarray(centre)).on(pair.base)),
        ("inject", pair.aligned, lambda part: _injected(pair, layer, part)),
    ):
        plain, groups = score(loaded)
        changed = []
        for part in subspaces:
            with apply(part):
                changed.append(score(loaded)[0])
        for metric in metrics:
            losses = [metric_of(metric).sign * (plain[metric] - values[metric]) for values in changed]
            interval = mean_interval(losses[0], groups, seed=seed)
            randoms = np.array([loss.mean() for loss in losses[1:]])
            extreme = randoms.max() if name == "ablate" else randoms.min()
            ends = (interval.value, interval.low, interval.high, float(randoms.mean()), float(extreme))
            made.append(DirectionEffect(name, metric, *ends, interval.n_items, interval.n_groups))
    return DirectionEffects(suite.name, template, directions[0].address, len(basis), tuple(made))


@contextmanager
def _injected(pair: ModelPair, layer: int, basis: np.ndarray) -> Iterator[None]:
    """Aligned with its coordinates along the basis [k, d] after a block replaced by base's, token by token."""
    base_block, aligned_block = pair.base.anatomy.blocks[layer], pair.aligned.anatomy.blocks[layer]
    with twin(pair.aligned.model, pair.base.model, {"block": base_block}) as seen:

        def change(stream: torch.Tensor) -> torch.Tensor:
            along = torch.as_tensor(basis, dtype=stream.dtype, device=stream.device)
            missing = seen.outputs["block"].to(stream.device, stream.dtype) - stream
            return stream + (missing @ along.T) @ along

        with replaced_output(aligned_block, change):
            yield


def _basis(directions: list[Direction], d: int, n_layers: int) -> tuple[np.ndarray, int]:
    addresses = sorted({direction.address for direction in directions})
    if len(addresses) != 1 or directions[0].site != "resid_post":
        rows = [("addresses", ", ".join(addresses) or "none"), ("expected", "directions of one resid_post.L")]
        raise UsageError(explain("directions to test must share one address.", rows))
    layer = directions[0].layer
    vectors = np.stack([direction.vector for direction in directions])
    if vectors.shape[1] != d or not 0 <= layer < n_layers:
        rows = [("direction", f"{addresses[0]}, d = {vectors.shape[1]}"), ("model", f"{n_layers} layers, d = {d}")]
        raise UsageError(explain("the directions are not of this model.", rows))
    return np.linalg.svd(vectors, full_matrices=False)[2], layer
