"""Recovery without weights: a low-rank shift of the stream at one layer, fitted, scored, kept and put back on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.activations.hooks.paired_forward import replaced_output
from taxlens.core.errors import StoreError, UsageError, explain, understood
from taxlens.core.json_text import parse_json
from taxlens.core.plain_files import read_tensors, write_tensors


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """A shift of the residual stream after one block: x + scale * (shift + write (read (x - centre))).

    Of rank 1 it is a constant vector: the mean of what the aligned stream lacks. Higher ranks add the best
    linear guess of the rest from the stream itself. It was fitted on base activations, so it is a test of what
    is still there, and no cure that could be had without the base.

    Args:
        site: "resid_post".
        layer: block index.
        shift: float64 [d].
        read: float64 [rank - 1, d].
        write: float64 [d, rank - 1].
        centre: float64 [d], mean of the stream that it was fitted on.
        scale: factor on all of it.
        measured: what it was measured to do, for the file.
    """

    site: str
    layer: int
    shift: np.ndarray
    read: np.ndarray
    write: np.ndarray
    centre: np.ndarray
    scale: float = 1.0
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """1 for a constant vector, more with what is read from the stream."""
        return 1 + len(self.read)

    def apply(self, stream: torch.Tensor) -> torch.Tensor:
        """The stream [..., d] with the shift added."""
        shift, read, write, centre = (
            torch.as_tensor(part, dtype=stream.dtype, device=stream.device)
            for part in (self.shift, self.read, self.write, self.centre)
        )
        return stream + self.scale * (shift + ((stream - centre) @ read.T) @ write.T)

    @contextmanager
    def on(self, loaded: Any) -> Iterator[Any]:
        """Yield a loaded model whose stream is steered at every position; it is as before on leaving.

        Args:
            loaded: a model of a pair.

        Example:
            >>> with Steering.load("facts.safetensors").on(pair.aligned) as model:     # doctest: +SKIP
            ...     model.generate(...)                                                # doctest: +SKIP
        """
        with replaced_output(loaded.anatomy.blocks[self.layer], self.apply):
            yield loaded.model

    @classmethod
    def ablation(cls, direction: np.ndarray, centre: np.ndarray, *, layer: int, site: str = "resid_post") -> Steering:
        """The steering that puts the stream, along one direction [d], where a centre [d] lies along it.

        References:
            One direction that refusals hang on: Arditi et al. 2024.
        """
        unit = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
        return cls(site, layer, np.zeros_like(unit), unit[None], -unit[:, None], np.asarray(centre, dtype=np.float64))

    def random(self, seed: int) -> Steering:
        """A control of the same rank and norms in random directions."""
        rng = np.random.default_rng(seed)

        def like(matrix: np.ndarray) -> np.ndarray:
            drawn = rng.standard_normal(matrix.shape)
            return drawn * (np.linalg.norm(matrix) / max(np.linalg.norm(drawn), 1e-30))

        return Steering(
            self.site, self.layer, like(self.shift), like(self.read), like(self.write), self.centre, self.scale
        )

    def save(self, path: Path | str) -> Path:
        """Write the vectors, the address, the scale and what was measured as one safetensors file."""
        facts = {"site": self.site, "layer": self.layer, "scale": self.scale, "measured": self.measured}
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("shift", "read", "write", "centre")}
        return write_tensors(path, arrays, {"taxlens_steering": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path | str) -> Steering:
        """Read a file that `save` wrote.

        Raises:
            UsageError: there is no such file.
            StoreError: the file is no steering file.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(explain("steering file not found.", [("file", path)]))
        title, fix = "this is no steering file.", "write one with Steering.save."
        tensors, metadata = read_tensors(path, title=title, fix=fix)
        with understood(title, file=path, fix=fix, error=StoreError):
            facts = parse_json(metadata["taxlens_steering"])
            arrays = {name: value.numpy() for name, value in tensors.items()}
            return cls(facts["site"], facts["layer"], **arrays, scale=facts["scale"], measured=facts["measured"])


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """Directions taken out of the stream after one block, at every position.

    Args:
        layer: block index.
        basis: orthonormal directions, float64 [k, d].
        centre: [d] where the stream is put along them (the mean), so that nothing else moves.
    """

    layer: int
    basis: np.ndarray
    centre: np.ndarray

    def apply(self, stream: torch.Tensor) -> torch.Tensor:
        """The stream [..., d] without its component along the directions."""
        basis = torch.as_tensor(self.basis, dtype=stream.dtype, device=stream.device)
        centre = torch.as_tensor(self.centre, dtype=stream.dtype, device=stream.device)
        return stream - ((stream - centre) @ basis.T) @ basis

    @contextmanager
    def on(self, loaded: Any) -> Iterator[Any]:
        """Yield a loaded model without these directions; it is as before on leaving."""
        with replaced_output(loaded.anatomy.blocks[self.layer], self.apply):
            yield loaded.model


def fit_steering(
    x: np.ndarray, target: np.ndarray, *, rank: int, layer: int, site: str = "resid_post", penalty: float = 0.01
) -> Steering:
    """The steering of a rank that best takes aligned streams to the base's, on the rows given.

    Rank 1 is the mean difference. Higher ranks add the leading part of a ridge regression of the remaining
    difference on the stream (reduced-rank regression). Streams that are all alike (an early layer that reads the last
    words alone, which all prompts share) have nothing to regress on: the mean difference is all that is fitted.

    Args:
        x: aligned streams, [n, d].
        target: the base's streams of the same tokens, [n, d].
        rank: 1 or more.
        layer: block index.
        site: the site's name.
        penalty: ridge penalty, times the mean eigenvalue of the streams' covariance.

    References:
        Reduced-rank regression: Izenman 1975.
    """
    if rank < 1:
        raise UsageError(explain("a steering has rank 1 or more.", [("rank", rank)]))
    x, target = np.asarray(x, dtype=np.float64), np.asarray(target, dtype=np.float64)
    centre, shift = x.mean(axis=0), (target - x).mean(axis=0)
    empty = (np.empty((0, x.shape[1])), np.empty((x.shape[1], 0)))
    streams, rest = x - centre, target - x - shift
    if rank == 1 or not streams.any():
        return Steering(site, layer, shift, *empty, centre)
    gram = streams.T @ streams
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, streams.T @ rest)
    _, _, directions = np.linalg.svd(streams @ weights, full_matrices=False)
    kept = directions[: rank - 1]
    return Steering(site, layer, shift, (weights @ kept.T).T, kept.T, centre)
