"""From tallies at the nodes to effects: the weighted sums of the chain rule, shard by shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from taxlens.analysis.path.adaptive_quadrature import Choices, Walked, change, loss_sign
from taxlens.analysis.path.attribution import SuiteEffects, TokenEffects
from taxlens.analysis.path.chain_rule import ScoreMetric, direct, values_of
from taxlens.analysis.path.gradient_passes import ItemShard

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.path.module_rules import Layout

Piece = tuple[Walked, Choices, ItemShard]


def effects_of(
    suite: Suite,
    piece: Piece,
    layout: Layout,
    metrics: dict[str, str | ScoreMetric],
    *,
    first_order: bool,
    seconds: float,
    measured: tuple[np.ndarray, np.ndarray] | None = None,
    causes: tuple[str, ...] = (),
) -> SuiteEffects:
    """Return the effects that one shard's walk found.

    Args:
        suite: the suite that the shard is of.
        piece: the walk, the shard's choices, the shard.
        layout: the units of every level.
        metrics: name to built-in name or user metric.
        first_order: take each metric's own gradient at the single node instead of the chain rule.
        seconds: time spent.
        measured: scores [items, choices] of the base and of the aligned model as each is asked, where they are not
            those at the path's ends.
        causes: why they are not, in words.
    """
    walked, _, shard = piece
    kept = sorted({row.item for row in shard.rows})
    levels = tuple(walked.tallies[0].units)
    units = {level: layout.units[level] for level in levels}
    values, errors, taxes, apart, by_token = {}, {}, {}, {}, {}
    for name, metric in metrics.items():
        weights = _weights(piece, name, metric, first_order)
        taxes[name] = on_path = -loss_sign(metric) * change(walked.path, metric)
        if measured is not None:
            taxes[name] = -loss_sign(metric) * change(walked.path, metric, ends=measured)
            apart[name] = taxes[name] - on_path
        for level in levels:
            values[name, level] = _effects(piece, weights, level)
            errors[name, level] = np.abs(_changes(piece, weights, name, level, loss_sign(metric))) / len(kept)
        if walked.tallies[0].tokens is not None:
            by_token[name] = _token_effects(piece, weights)
    times, profile = _profile(piece, metrics)
    missed, moved = _end_errors(walked)
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
        tokens=_tokens(shard, kept, by_token) if by_token else None,
        times=times,
        profile=profile,
        missed=missed,
        moved=moved,
        gradients=walked.gradients,
        forwards=walked.forwards,
        seconds=seconds,
        closed=walked.closed,
        reason=walked.reason,
        grazes={name: walked.chained[name].grazes for name in metrics},
        apart=apart,
        causes=causes if measured is not None else (),
    )


def merged(parts: Sequence[SuiteEffects]) -> SuiteEffects:
    """Put the shards of one suite together: items one after another, errors and profiles averaged over items."""
    first = parts[0]
    if len(parts) == 1:
        return first
    share = np.array([len(part.items) for part in parts]) / sum(len(part.items) for part in parts)
    times = np.array(sorted(set(first.times).intersection(*(part.times for part in parts[1:]))))
    at = [np.searchsorted(part.times, times) for part in parts]
    return dataclasses.replace(
        first,
        items=tuple(item for part in parts for item in part.items),
        groups=np.concatenate([part.groups for part in parts]),
        values={key: np.concatenate([part.values[key] for part in parts]) for key in first.values},
        errors={key: sum(s * part.errors[key] for s, part in zip(share, parts)) for key in first.errors},
        taxes={key: np.concatenate([part.taxes[key] for part in parts]) for key in first.taxes},
        tokens=_merged_tokens(parts) if first.tokens is not None else None,
        times=times,
        profile={key: sum(s * part.profile[key][i] for s, part, i in zip(share, parts, at)) for key in first.profile},
        missed=np.concatenate([part.missed for part in parts]),
        moved=np.concatenate([part.moved for part in parts]),
        gradients=max(part.gradients for part in parts),
        forwards=max(part.forwards for part in parts),
        seconds=sum(part.seconds for part in parts),
        closed=all(part.closed for part in parts),
        reason=next((part.reason for part in parts if part.reason), ""),
        grazes={key: sum(part.grazes[key] for part in parts) for key in first.grazes},
        rewalked=sum(part.rewalked for part in parts),
        apart=joined_apart(parts, np.concatenate),
        causes=tuple(dict.fromkeys(cause for part in parts for cause in part.causes)),
    )


def joined_apart(
    parts: Sequence[SuiteEffects], join: Callable[[list[np.ndarray]], np.ndarray]
) -> dict[str, np.ndarray]:
    """`SuiteEffects.apart` of several walks together; a walk without any counts as 0."""
    if not any(part.apart for part in parts):
        return {}
    held = [part.apart or {name: np.zeros_like(tax) for name, tax in part.taxes.items()} for part in parts]
    return {name: join([one[name] for one in held]) for name in held[0]}


def _merged_tokens(parts: Sequence[SuiteEffects]) -> TokenEffects:
    held = [part.tokens for part in parts if part.tokens is not None]
    before = np.cumsum([0, *(len(part.items) for part in parts[:-1])])
    return TokenEffects(
        item=np.concatenate([tokens.item + n for tokens, n in zip(held, before)]),
        choice=np.concatenate([tokens.choice for tokens in held]),
        place=np.concatenate([tokens.place for tokens in held]),
        ids=np.concatenate([tokens.ids for tokens in held]),
        values={key: np.concatenate([tokens.values[key] for tokens in held]) for key in held[0].values},
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
    tallies, coarse = walked.coarse
    before = -sign * coarse[name][:, choices.item, choices.choice]
    fine = sum(w @ tally.units[level].numpy() for w, tally in zip(weights, walked.tallies))
    return np.asarray(fine - sum(w @ tally.units[level].numpy() for w, tally in zip(before, tallies)))


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


def _tokens(shard: ItemShard, kept: list[int], values: dict[str, np.ndarray]) -> TokenEffects:
    place = {item: n for n, item in enumerate(kept)}
    read = np.diff(shard.offsets)
    return TokenEffects(
        item=np.repeat([place[row.item] for row in shard.rows], read),
        choice=np.repeat([row.choice for row in shard.rows], read),
        place=np.concatenate([np.arange(n) for n in read]),
        ids=np.concatenate([row.ids[:-1] for row in shard.rows]),
        values=values,
    )


def _profile(piece: Piece, metrics: dict[str, str | ScoreMetric]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Both ends and the nodes, and each metric's mean there."""
    times = np.array([0.0, *piece[0].path.rule.nodes, 1.0])
    profile = {
        name: np.array([_values(piece, n, metric).mean() for n in range(len(times))])
        for name, metric in metrics.items()
    }
    kept = np.concatenate([[True], np.diff(times) > 0])
    return times[kept], {name: values[kept] for name, values in profile.items()}


def _values(piece: Piece, number: int, metric: str | ScoreMetric) -> np.ndarray:
    walked, choices, _ = piece
    path = walked.path
    inner = len(walked.measured)
    ends = {0: path.start, inner + 1: path.end}
    scores = ends[number] if number in ends else choices.table(walked.measured[number - 1])
    return values_of(metric, scores, path.gold, path.n_bytes)


def _end_errors(walked: Walked) -> tuple[np.ndarray, np.ndarray]:
    """Each item's error of the scores predicted at t = 1, and their move, both summed over choices."""
    path = walked.path
    missed = np.nansum(np.abs(path.predicted_end() - path.end), axis=1)
    return missed, np.nansum(np.abs(path.end - path.start), axis=1)


def with_items(found: SuiteEffects, finer: SuiteEffects, places: np.ndarray) -> SuiteEffects:
    """Return a suite's effects with those of the items at `places` taken from a finer walk of these items alone.

    Quadrature errors stay those of the first walk, which is an upper bound for the items walked again.
    """
    values = {key: effects.copy() for key, effects in found.values.items()}
    for key, effects in finer.values.items():
        values[key][places] = effects
    missed, moved = found.missed.copy(), found.moved.copy()
    missed[places], moved[places] = finer.missed, finer.moved
    tokens = found.tokens
    if tokens is not None and finer.tokens is not None:
        mine = np.isin(tokens.item, places)
        by_token = {metric: effects.copy() for metric, effects in tokens.values.items()}
        for metric, effects in finer.tokens.values.items():
            by_token[metric][mine] = effects
        tokens = dataclasses.replace(tokens, values=by_token)
    return dataclasses.replace(
        found,
        values=values,
        missed=missed,
        moved=moved,
        tokens=tokens,
        forwards=max(found.forwards, finer.forwards),
        seconds=found.seconds + finer.seconds,
        rewalked=len(places),
    )
