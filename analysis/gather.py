"""From tallies at the nodes to effects: the weighted sums of the chain rule, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from taxlens.analysis.adaptive import Choices, Walked, change, loss_sign
from taxlens.analysis.attribution import SuiteEffects, TokenEffects
from taxlens.analysis.chain import ScoreMetric, direct
from taxlens.analysis.metrics import item_metrics
from taxlens.analysis.passes import Shard

if TYPE_CHECKING:
    from taxlens.activations.items import Suite
    from taxlens.analysis.units import Difference

Piece = tuple[Walked, Choices, Shard]


def gather(
    suite: Suite,
    pieces: Sequence[Piece],
    difference: Difference,
    metrics: dict[str, str | ScoreMetric],
    *,
    first_order: bool,
    seconds: float,
) -> SuiteEffects:
    """Put the shards of a suite together.

    Args:
        suite: the suite.
        pieces: what each shard's walk found.
        difference: the pair's change, for the units.
        metrics: name to built-in name or user metric.
        first_order: take each metric's own gradient at the single node instead of the chain rule.
        seconds: time spent.
    """
    kept = sorted({row.item for _, _, shard in pieces for row in shard.rows})
    levels = tuple(pieces[0][0].tallies[0].units)
    units = {level: difference.units(level) for level in levels}
    values, errors, taxes, by_token = {}, {}, {}, {}
    for name, metric in metrics.items():
        weights = [_weights(piece, name, metric, first_order) for piece in pieces]
        taxes[name] = np.concatenate([-loss_sign(metric) * change(w.path, metric) for w, _, _ in pieces])
        for level in levels:
            found = [_effects(piece, own, level) for piece, own in zip(pieces, weights)]
            values[name, level] = np.concatenate(found)
            errors[name, level] = sum(
                _changes(piece, own, name, level, loss_sign(metric)) for piece, own in zip(pieces, weights)
            ) / len(kept)
            errors[name, level] = np.abs(errors[name, level])
        if pieces[0][0].tallies[0].tokens is not None:
            by_token[name] = np.concatenate([_token_effects(p, own) for p, own in zip(pieces, weights)])
    times, profile = _profile(pieces, metrics)
    moved = [_end_errors(walked) for walked, _, _ in pieces]
    total = sum(m[1].sum() for m in moved)
    return SuiteEffects(
        suite=suite.name,
        items=tuple(suite.items[i].id for i in kept),
        groups=np.array([suite.items[i].group for i in kept], dtype=object),
        units={level: tuple(named) for level, named in units.items()},
        layers={level: np.array([unit.layer for unit in named.values()]) for level, named in units.items()},
        kinds={level: tuple(unit.kind for unit in named.values()) for level, named in units.items()},
        values=values,
        errors=errors,
        taxes=taxes,
        tokens=_tokens(pieces, kept, by_token) if by_token else None,
        times=times,
        profile=profile,
        end_error=(
            float(sum(m[0].sum() for m in moved) / total) if total else 0.0,
            float(max((m[0] / np.maximum(m[1], 1e-12)).max() for m in moved)) if total else 0.0,
        ),
        gradients=max(walked.gradients for walked, _, _ in pieces),
        forwards=max(walked.forwards for walked, _, _ in pieces),
        seconds=seconds,
        closed=all(walked.closed for walked, _, _ in pieces),
        reason=next((walked.reason for walked, _, _ in pieces if walked.reason), ""),
        grazes={name: sum(walked.chained[name].grazes for walked, _, _ in pieces) for name in metrics},
    )


def _weights(piece: Piece, name: str, metric: str | ScoreMetric, first_order: bool) -> np.ndarray:
    """What each node's tally is worth to the loss, float64 [nodes, rows]."""
    walked, choices, _ = piece
    if first_order:
        table = direct(walked.path, metric, choices.table(walked.measured))
    else:
        table = walked.chained[name].weights
    return -loss_sign(metric) * table[:, choices.item, choices.choice]


def _effects(piece: Piece, weights: np.ndarray, level: str) -> np.ndarray:
    """Effects of a level's units on each item, float64 [items, units]."""
    walked, choices, _ = piece
    rows = np.zeros(walked.tallies[0].units[level].shape)
    for weight, tally in zip(weights, walked.tallies):
        rows += weight[:, None] * tally.units[level].numpy()
    return np.add.reduceat(rows, np.flatnonzero(np.diff(choices.item, prepend=-1)), axis=0)


def _changes(piece: Piece, weights: np.ndarray, name: str, level: str, sign: float) -> np.ndarray:
    """Sum over items of what the units' effects changed by from the rule before, float64 [units]; NaN without one."""
    walked, choices, _ = piece
    if walked.coarse is None:
        return np.full(walked.tallies[0].units[level].shape[1], np.nan)
    nodes, coarse = walked.coarse
    moved = weights.copy()
    moved[nodes] += sign * coarse[name][:, choices.item, choices.choice]
    return sum(w @ tally.units[level].numpy() for w, tally in zip(moved, walked.tallies))


def _token_effects(piece: Piece, weights: np.ndarray) -> np.ndarray:
    """Effects of components by token, [tokens, components]."""
    walked, _, shard = piece
    owner = np.repeat(np.arange(len(shard.rows)), np.diff(shard.offsets))
    total = None
    for weight, tally in zip(weights, walked.tallies):
        assert tally.tokens is not None
        share = weight[owner][:, None] * tally.tokens.numpy()
        total = share if total is None else total + share
    assert total is not None
    return total


def _tokens(pieces: Sequence[Piece], kept: list[int], values: dict[str, np.ndarray]) -> TokenEffects:
    place = {item: n for n, item in enumerate(kept)}
    rows = [row for _, _, shard in pieces for row in shard.rows]
    read = [len(row.ids) - 1 for row in rows]
    return TokenEffects(
        item=np.repeat([place[row.item] for row in rows], read),
        choice=np.repeat([row.choice for row in rows], read),
        place=np.concatenate([np.arange(n) for n in read]),
        ids=np.concatenate([row.ids[:-1] for row in rows]),
        values=values,
    )


def _profile(
    pieces: Sequence[Piece], metrics: dict[str, str | ScoreMetric]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times at which every shard knows its scores, and each metric's mean there."""
    known = [(0.0, *(float(t) for t in walked.path.rule.nodes), 1.0) for walked, _, _ in pieces]
    times = sorted(set(known[0]).intersection(*known[1:]))
    profile = {}
    for name, metric in metrics.items():
        means = []
        for t in times:
            found = [_values(piece, at.index(t), metric) for piece, at in zip(pieces, known)]
            means.append(float(np.concatenate(found).mean()))
        profile[name] = np.array(means)
    return np.array(times), profile


def _values(piece: Piece, number: int, metric: str | ScoreMetric) -> np.ndarray:
    walked, choices, _ = piece
    path = walked.path
    inner = len(walked.measured)
    ends = {0: path.start, inner + 1: path.end}
    scores = ends[number] if number in ends else choices.table(walked.measured[number - 1])
    if isinstance(metric, ScoreMetric):
        return metric.value(scores, path.gold)
    return item_metrics(scores, path.gold, n_bytes=path.n_bytes, metrics=(metric,))[metric]


def _end_errors(walked: Walked) -> tuple[np.ndarray, np.ndarray]:
    """Each item's error of the scores predicted at t = 1, and their move, both summed over choices."""
    path = walked.path
    missed = np.nansum(np.abs(path.predicted_end() - path.end), axis=1)
    return missed, np.nansum(np.abs(path.end - path.start), axis=1)
