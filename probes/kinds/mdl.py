"""Minimum description length by the online code: how many bits a probe needs to send the labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.intervals import group_counts
from taxlens.probes.kinds.cross_validation import rows_of
from taxlens.probes.kinds.ridge import PENALTIES, decompose, left_out_reading, left_out_residuals
from taxlens.probes.rows.calibration import fit_calibration
from taxlens.probes.rows.folds import group_codes
from taxlens.probes.rows.labels import Labels, read_labels, warn

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class CodeLength:
    """Bits to send the labels of the rows, block after block, each with a probe fitted on what was sent.

    Args:
        bits: of the online code.
        uniform: of sending every label with log2(classes) bits.
        low: lower end of the group-bootstrap interval of the compression.
        high: its upper end.
        n_items: rows.
        n_groups: groups.
    """

    bits: float
    uniform: float
    low: float
    high: float
    n_items: int
    n_groups: int

    @property
    def compression(self) -> float:
        """Uniform over online bits: about 1 where nothing is read, more where labels are easy to read."""
        return self.uniform / self.bits

    def __repr__(self) -> str:
        return (
            f"CodeLength({self.bits:.1f} bits, compression {self.compression:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"n={self.n_items} items in {self.n_groups} groups)"
        )


def online_code(
    X: np.ndarray,
    y: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | str | None,
    *,
    shares: Sequence[float] = SHARES,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> CodeLength:
    """Return the online code length of a label given rows of one model and layer.

    Groups are shuffled and sent in blocks; the first block is sent uniformly, each later one with a ridge
    probe whose penalty and calibration come from inside the prefix (leave-group-out). Easy and strong
    readings give short codes; memorising does not. Compare base and aligned with the same seed.

    Args:
        X: [n, d] rows.
        y: [n] class labels.
        groups: [n] group of each row.
        shares: ends of the blocks as shares of the groups, rising to 1.
        bootstrap: draws of the interval.
        seed: of the shuffle and the draws.
        level: of the interval.

    Raises:
        UsageError: for regression labels, or shares that do not rise to 1.

    References: Voita and Titov 2020, arXiv 2003.12298, section 3.2.
    """
    codes, notes = group_codes(groups, len(y))
    labels = read_labels(y, groups=codes)
    warn([*notes, *labels.notes])
    X = np.asarray(X, dtype=np.float64).reshape(len(y), -1)[labels.keep]
    group = np.unique(codes[labels.keep], return_inverse=True)[1]
    bits = code_bits(X, labels, group, shares=shares, seed=seed)
    uniform, n_groups = float(np.log2(len(labels.classes))), int(group.max()) + 1
    drawn = compression_draws(bits, uniform, group, group_counts(n_groups, draws=bootstrap, seed=seed))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return CodeLength(float(bits.sum()), uniform * len(labels), float(low), float(high), len(labels), n_groups)


def code_bits(
    X: np.ndarray, labels: Labels, group: np.ndarray, *, shares: Sequence[float] = SHARES, seed: int = 0
) -> np.ndarray:
    """Return the bits [n] that each label costs in the online code; the order of groups is the seed's alone.

    Args:
        X: [n, d] float64 rows.
        labels: of the rows.
        group: [n] group codes from 0.
        shares: ends of the blocks as shares of the groups, rising to 1.
        seed: of the order.

    Raises:
        UsageError: for regression labels, or shares that do not rise to 1.
    """
    shares = tuple(shares)
    if not shares or shares[-1] != 1 or any(b <= a for a, b in zip((0.0, *shares), shares, strict=False)):
        raise UsageError(explain("shares of the online code must rise to 1.", [("got", shares)]))
    if labels.task == "regression":
        raise UsageError(explain("the online code sends classes.", [("label", "regression")], "probe='ridge'."))
    n_groups = int(group.max()) + 1
    rank = np.argsort(np.random.default_rng(seed).permutation(n_groups))[group]
    ends = np.unique(np.maximum(np.round(np.array(shares) * n_groups).astype(int), 1))
    bits = np.full(len(labels), float(np.log2(len(labels.classes))))
    for start, end in itertools.pairwise(ends):
        sent, block = np.flatnonzero(rank < start), np.flatnonzero((rank >= start) & (rank < end))
        probability = _predict(X, labels, group, sent, block)
        if probability is not None:
            bits[block] = -np.log2(np.maximum(probability, 1e-12))
    return bits


def compression_draws(bits: np.ndarray, uniform: float, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return uniform over online bits [draws] under group weights [draws, groups].

    Args:
        bits: [n] bits of each label.
        uniform: bits of each label in the uniform code.
        group: [n] group codes from 0.
        weights: [draws, groups] how often each group was drawn.
    """
    sums = np.stack([np.bincount(group, weights=bits), uniform * np.bincount(group)], axis=1)
    drawn = weights @ sums
    return drawn[:, 1] / drawn[:, 0]


def _predict(
    X: np.ndarray, labels: Labels, group: np.ndarray, sent: np.ndarray, block: np.ndarray
) -> np.ndarray | None:
    """Return the probability [block] of each label by a probe of the prefix; None where it holds one class."""
    if len(np.unique(labels.codes[sent])) < 2 or len(np.unique(group[sent])) < 3:
        return None
    targets = rows_of(labels, sent).targets()
    spectrum = decompose(X[sent], targets)
    if not len(spectrum.values):
        return None
    Z, grid = spectrum.project(X[sent]), np.array(PENALTIES)
    residual = left_out_residuals(spectrum, Z, targets, group[sent], penalties=grid)
    penalty = float(grid[(residual**2).mean((1, 2)).argmin()])
    held_out = left_out_reading(spectrum, Z, targets, group[sent], read=Z, penalty=penalty)
    calibration = fit_calibration(held_out, labels.codes[sent])
    scores = spectrum.target_mean + spectrum.project(X[block]) @ spectrum.weights(np.full(targets.shape[1], penalty))
    return calibration.probabilities(scores)[np.arange(len(block)), labels.codes[block]]
