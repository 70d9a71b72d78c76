"""A made-up population of paired items whose tax is known: what intervals and tests are tried on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr


@dataclass(frozen=True, slots=True)
class PairedModel:
    """A population of paired items with group effects, for checking intervals and tests.

    Latent ability on an item = mean + group effect (shared by the models) + group effect of
    each model + item effect (shared) + noise of each model; right where it is positive.

    Attributes:
        n_groups: groups.
        group_size: mean items a group (sizes are Poisson, at least 1).
        mean: latent mean of base.
        shift: how much lower aligned's is; 0 makes the two models exchangeable.
        group: standard deviation of the shared group effect.
        group_model: of each model's own group effect.
        item: of the shared item effect.
        noise: of each model's own noise.
    """

    n_groups: int = 40
    group_size: float = 10.0
    mean: float = 0.8
    shift: float = 0.3
    group: float = 0.7
    group_model: float = 0.4
    item: float = 1.0
    noise: float = 0.7

    @property
    def tax(self) -> float:
        """The population's true tax in accuracy."""
        spread = np.sqrt(self.group**2 + self.group_model**2 + self.item**2 + self.noise**2)
        return float(ndtr(self.mean / spread) - ndtr((self.mean - self.shift) / spread))

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One suite: (base right [n], aligned right [n], group [n])."""
        rng = np.random.default_rng(seed)
        sizes = np.maximum(1, rng.poisson(self.group_size, self.n_groups))
        index = np.repeat(np.arange(self.n_groups), sizes)
        shared = rng.normal(0, self.group, self.n_groups)[index] + rng.normal(0, self.item, len(index))
        right = []
        for mean in (self.mean, self.mean - self.shift):
            own = rng.normal(0, self.group_model, self.n_groups)[index] + rng.normal(0, self.noise, len(index))
            right.append((mean + shared + own > 0).astype(np.float64))
        return right[0], right[1], index
