"""A direction: a unit vector in a site's space, with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from taxlens.core.errors import UsageError, explain


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A unit vector in the space of a site and layer.

    Args:
        vector: [d] float64; scaled to norm 1 on construction, unless it has it.
        site: the site it lives in ("resid_post").
        layer: block index from 0.
        source: provenance: what fitted it, on which suite, label, model.

    Raises:
        UsageError: if the vector is not one-dimensional, not finite, or zero.

    Example:
        >>> Direction(np.array([3.0, 4.0]), site="resid_post", layer=7).vector.tolist()
        [0.6, 0.8]
    """

    vector: np.ndarray
    site: str = ""
    layer: int = -1
    source: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vector = np.asarray(self.vector, dtype=np.float64)
        norm = float(np.linalg.norm(vector))
        if vector.ndim != 1 or not np.isfinite(norm) or norm == 0:
            rows = [("shape", vector.shape), ("norm", norm), ("expected", "[d], finite, not zero")]
            raise UsageError(explain("a direction needs a finite non-zero vector.", rows))
        unit = abs(norm - 1) < 1e-14  # of length one already: a direction read from its file is the one written
        object.__setattr__(self, "vector", vector if unit else vector / norm)

    @property
    def address(self) -> str:
        """Site and layer as written in tables: `resid_post.7`."""
        return f"{self.site}.{self.layer}"

    def cosine(self, other: Direction) -> float:
        """Cosine with another direction of the same space, in [-1, 1]."""
        return float(self.vector @ other.vector)

    def __repr__(self) -> str:
        return f"Direction({self.address}, d={len(self.vector)}, source={dict(self.source)!r})"
