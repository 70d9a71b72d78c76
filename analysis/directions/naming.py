"""What a direction is: the tokens it promotes, the probes it is like, the items at its two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from taxlens.activations.models.loading import LoadedModel
from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result

TOP = 10
RANDOM = 200


@dataclass(frozen=True, slots=True)
class Naming:
    """One thing that says what a direction is.

    Args:
        kind: "token" (z of its logit change among all tokens), "probe" (cosine), "item" (projection in
            standard deviations of the rows).
        end: "+" or "-": a direction's sign is arbitrary, so both ends are named.
        name: the token, the probe's label, the item's id.
        value: as `kind` says.
        null: what chance reaches: the largest |z| of a random direction (95 %), the |cosine| of one;
            NaN for items.
    """

    kind: str
    end: str
    name: str
    value: float
    null: float


@dataclass(frozen=True, slots=True)
class DirectionNames(Result):
    """What a direction promotes, is like, and separates."""

    direction: Direction
    names: tuple[Naming, ...]

    figure: ClassVar[str] = "directions"

    def to_frame(self) -> pd.DataFrame:
        """Return kind, end, name, value, null: one row a name, strongest first within kind and end."""
        return pd.DataFrame([asdict(name) for name in self.names], columns=list(Naming.__dataclass_fields__))

    def __repr__(self) -> str:
        parts = []
        for kind in dict.fromkeys(name.kind for name in self.names):
            for end in "+-":
                found = [name.name for name in self.names if (name.kind, name.end) == (kind, end)]
                if found:
                    parts.append(f"{kind}s {end}: {', '.join(found[:5])}")
        return f"DirectionNames({self.direction.address}; {'; '.join(parts)})"

    def __add__(self, other: DirectionNames) -> DirectionNames:
        return DirectionNames(self.direction, self.names + other.names)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What a step in the residual stream does to the logits, on the direct path: final norm's gain, unembedding.

    Args:
        matrix: [vocabulary, d] output matrix times the gain.
        tokens: [vocabulary] text of each token.
        null: the largest |z| among all tokens that 95 % of 200 random directions stay under.
    """

    matrix: np.ndarray
    tokens: tuple[str, ...]
    null: float

    @classmethod
    def of(
        cls, unembedding: np.ndarray, tokens: Sequence[str], *, gain: np.ndarray | None = None, seed: int = 0
    ) -> Vocabulary:
        """Return the vocabulary of an output matrix, with its null.

        Args:
            unembedding: [vocabulary, d] output matrix.
            tokens: [vocabulary] text of each token.
            gain: [d] gain of the final norm (1 + weight for models that store gain - 1).
            seed: of the random directions.

        Raises:
            UsageError: tokens and matrix differ in number, or gain and matrix in width.
        """
        matrix = np.asarray(unembedding, dtype=np.float32)
        d = matrix.shape[-1]
        scale = np.ones(d) if gain is None else np.asarray(gain)
        if matrix.ndim != 2 or len(tokens) != len(matrix) or scale.shape != (d,):
            rows = [("unembedding", matrix.shape), ("tokens", len(tokens)), ("gain", scale.shape)]
            raise UsageError(explain("tokens, unembedding and gain do not fit each other.", rows))
        matrix = matrix * scale.astype(np.float32)
        drawn = np.random.default_rng(seed).normal(size=(RANDOM, d)).astype(np.float32)
        null = np.quantile(np.abs(_standard(matrix @ drawn.T)).max(0), 0.95)
        return cls(matrix, tuple(tokens), float(null))

    @classmethod
    def of_model(cls, loaded: LoadedModel) -> Vocabulary:
        """Return a loaded model's vocabulary."""
        weight, gain = output_matrix(loaded)
        texts = [loaded.tokenizer.decode([number]) for number in range(len(weight))]
        return cls.of(weight, texts, gain=gain)


def output_matrix(loaded: LoadedModel) -> tuple[np.ndarray, np.ndarray]:
    """Return a model's output matrix [tokens, d] and the gain [d] of the norm before it, both float32.

    A step v in the residual stream moves the logits on the direct path by matrix @ (gain * v), up to the norm's scale.
    Rows beyond the tokenizer's last token are padding and left out.
    """
    weight = loaded.model.get_output_embeddings().weight
    norm = loaded.anatomy.role("final_norm")
    gain = np.ones(1, dtype=np.float32) if norm is None else norm_gain(loaded.model.get_submodule(norm.name))
    return weight[: len(loaded.tokenizer)].detach().float().cpu().numpy(), np.broadcast_to(
        gain, weight.shape[1:]
    ).copy()


def norm_gain(norm: torch.nn.Module) -> np.ndarray:
    """Return what a norm multiplies its normalised input by, float32 [d].

    Some store the gain, some the gain less 1 (Gemma, Qwen3-Next, Nemotron), some none (OLMo): the norm is asked. Entries of one
    size and either sign, half of each, are normalised to +1 and -1 by every kind of norm.
    """
    weight = getattr(norm, "weight", None)
    if weight is None:
        return np.ones(1, dtype=np.float32)
    stored, d = weight.detach().float().cpu().numpy(), len(weight)
    signs = torch.ones(d, dtype=weight.dtype, device=weight.device)
    signs[1::2] = -1
    with torch.no_grad():
        told = ((norm(64 * signs) - norm(-64 * signs)) / 2 * signs).float().cpu().numpy()
    return min((stored, stored + 1), key=lambda gain: float(np.abs(gain - told).max())).astype(np.float32)


def promoted_tokens(direction: Direction, vocabulary: Vocabulary, *, top: int = TOP) -> DirectionNames:
    """Return the tokens whose logits a step along the direction raises and lowers most.

    The direct path only: final norm's gain, then the unembedding; what later blocks do with the direction
    is not seen, so it means more the later the layer. A random direction has leading tokens too: below
    `null`, the largest |z| that 95 % of 200 random directions stay under, the names are chance.

    Args:
        direction: in the residual stream.
        vocabulary: of the base model.
        top: tokens at each end.

    Raises:
        UsageError: the direction's width is not the vocabulary's.

    References:
        nostalgebraist 2020 (logit lens); Dar et al. 2023, arXiv 2209.02535.
    """
    d = vocabulary.matrix.shape[1]
    if len(direction.vector) != d:
        rows = [("direction", f"d = {len(direction.vector)}"), ("unembedding", f"d = {d}")]
        raise UsageError(explain("the unembedding does not fit the direction.", rows))
    change = _standard(vocabulary.matrix.astype(np.float64) @ direction.vector)
    return DirectionNames(direction, _ends("token", change, list(vocabulary.tokens), vocabulary.null, top))


def alike_probes(
    direction: Direction, probes: Mapping[str, Direction], *, covariance: np.ndarray | None = None
) -> DirectionNames:
    """Return the cosine of the direction with each probe's, largest first.

    Args:
        direction: what to name.
        probes: label to direction, at the same address.
        covariance: [d, d] of the rows: cosines of the variables that the directions read, which is what to
            compare where rows are far from isotropic; plain cosines if left out.

    Raises:
        UsageError: a probe lives at another address or width.

    Returns:
        DirectionNames; `null` is the |cosine| that 95 % of random directions stay under, about 2 / sqrt(d).
    """
    d = len(direction.vector)
    metric = np.eye(d) if covariance is None else np.asarray(covariance, dtype=np.float64)
    v = direction.vector
    found = []
    for label, probe in probes.items():
        if probe.address != direction.address or len(probe.vector) != d:
            rows = [("direction", direction.address), ("probe", f"{label} at {probe.address}")]
            raise UsageError(explain("a probe and a direction must live in the same space.", rows))
        w = probe.vector
        cosine = v @ metric @ w / np.sqrt((v @ metric @ v) * (w @ metric @ w))
        found.append((float(cosine), label))
    drawn = np.random.default_rng(0).normal(size=(2000, d))
    sizes = np.sqrt(np.einsum("nd,de,ne->n", drawn, metric, drawn) * (v @ metric @ v))
    null = float(np.quantile(np.abs(drawn @ metric @ v) / sizes, 0.95))
    found.sort(key=lambda pair: -abs(pair[0]))
    names = tuple(Naming("probe", "+" if c >= 0 else "-", label, c, null) for c, label in found)
    return DirectionNames(direction, names)


def extreme_items(
    direction: Direction,
    rows: np.ndarray,
    ids: Sequence[str],
    *,
    groups: Sequence[object] | None = None,
    top: int = TOP,
) -> DirectionNames:
    """Return the items that lie furthest along the direction at both ends, one a group.

    Args:
        direction: what to name.
        rows: [n, d] activations at its address.
        ids: [n] id of the item of each row.
        groups: [n] group of each row: only the furthest row of a group is named, at each end.
        top: items at each end.

    Raises:
        UsageError: rows, ids and groups differ in number, or in width from the direction.
    """
    X = np.asarray(rows, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != len(direction.vector) or len(ids) != len(X):
        text = [("rows", X.shape), ("ids", len(ids)), ("expected", f"[ids, {len(direction.vector)}]")]
        raise UsageError(explain("rows do not fit the direction.", text))
    if groups is not None and len(groups) != len(X):
        raise UsageError(explain("groups and rows differ in number.", [("groups", len(groups)), ("rows", len(X))]))
    along = _standard(X @ direction.vector)
    return DirectionNames(direction, _ends("item", along, list(ids), float("nan"), top, groups))


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)


def _ends(
    kind: str,
    values: np.ndarray,
    names: list[str],
    null: float,
    top: int,
    groups: Sequence[object] | None = None,
) -> tuple[Naming, ...]:
    made = []
    for end, sign in (("+", 1.0), ("-", -1.0)):
        seen: set[object] = set()
        for index in np.argsort(-sign * values, kind="stable"):
            group = int(index) if groups is None else groups[index]
            if len(seen) == top or sign * values[index] <= 0:
                break
            if group not in seen:
                seen.add(group)
                made.append(Naming(kind, end, str(names[index]), float(values[index]), null))
    return tuple(made)
