"""Scores and attributions in pieces: each worker loads the pair once, and any number of workers gives the same tables.

Pieces are cut from what is asked (items, columns, the memory named), never from who does them; a worker that reads
other weights, or runs another version, is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.pair import load_pair
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.path.attribution import SuiteEffects, TokenEffects
from taxlens.analysis.path.engine import MEMORY, PathSettings, opened
from taxlens.analysis.scoring.choices import SuiteScores, score_suite
from taxlens.core.errors import UsageError, explain
from taxlens.core.executor import Executor, Work, parts_of

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

ITEMS = 64
"""Items of a piece of scoring."""

_HERE = "taxlens.analysis.pieces.pair_pieces"


def request_of(pair: ModelPair, suites: Sequence[Suite], load: Mapping[str, Any], **asked: Any) -> dict[str, Any]:
    """What a worker must know: how to load the pair, what its weights are, the items, and what is asked of them.

    Args:
        pair: the pair, loaded here.
        suites: what is read.
        load: `load_pair`'s arguments, as plain values.
        asked: options of the work.
    """
    return {
        "load": dict(load),
        "sha256": {name: loaded.sha256 for name, loaded in pair.models()},
        "versions": versions(),
        "suites": [
            {"name": s.name, "kind": s.kind, "items": [dataclasses.asdict(item) for item in s.items]} for s in suites
        ],
        "asked": asked,
    }


def versions() -> dict[str, str]:
    """The versions that decide what a number is."""
    return {name: version(name) for name in ("taxlens", "torch", "transformers")}


def prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load a worker's pair and suites, and check them against the request.

    Raises:
        UsageError: this worker has other weights, or another version of what computes.
    """
    if (mine := versions()) != request["versions"]:
        rows = [("asked", request["versions"]), ("this worker", mine)]
        raise UsageError(explain("a worker runs other versions.", rows, "install the same on every machine."))
    pair = load_pair(**request["load"])
    found = {name: loaded.sha256 for name, loaded in pair.models()}
    if found != request["sha256"]:
        rows = [(name, f"{request['sha256'][name][:16]}, this worker {found[name][:16]}") for name in found]
        raise UsageError(explain("a worker reads other weights.", rows, "give paths that name the same files."))
    return {"pair": pair, "suites": [_suite(told) for told in request["suites"]], "asked": request["asked"]}


def score_piece(state: Mapping[str, Any], piece: Sequence[Any]) -> dict[str, Any]:
    """Score a span of a suite's items under one model.

    Args:
        state: what `prepare` gave.
        piece: (model, suite number, template, first item, stop).
    """
    model, number, template, first, stop = piece
    pair, suite = state["pair"], state["suites"][number].subset(range(first, stop))
    found = score_suite(getattr(pair, model), suite, prompting=as_asked(pair, getattr(pair, model), template))
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def attribute_piece(state: Mapping[str, Any], piece: Sequence[int]) -> dict[str, Any]:
    """Attribute one shard of a suite's items.

    Args:
        state: what `prepare` gave.
        piece: (suite number, shard number).
    """
    asked, (number, shard) = state["asked"], piece
    suite = state["suites"][number]
    with opened(state["pair"], tuple(asked["levels"]), _settings(asked), keep_tokens=asked["tokens"]) as job:
        rows = job.shards(job.rows(suite), memory=asked["memory"])[shard]
        return _plain(job.resolved(rows, suite))


def scores_in_pieces(
    pair: ModelPair, suites: Sequence[Suite], load: Mapping[str, Any], executor: Executor, *, template: str = "plain"
) -> dict[tuple[str, str], SuiteScores]:
    """Scores of both models by (model, suite), `ITEMS` items a piece, in the order of the suites.

    Args:
        pair: the pair, loaded here: its weights are what workers must have.
        suites: items with choices.
        load: `load_pair`'s arguments, for the workers.
        executor: who does the pieces.
        template: "plain" or "chat".
    """
    work = Work(f"{_HERE}:prepare", f"{_HERE}:score_piece", request_of(pair, suites, load))
    pieces = [
        (model, number, template, first, stop)
        for model, _ in pair.models()
        for number, suite in enumerate(suites)
        for first, stop in parts_of(len(suite), ITEMS)
    ]
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for piece, found in zip(pieces, executor.map(work, pieces), strict=True):
        parts.setdefault((piece[0], suites[piece[1]].name), []).append(found)
    return {key: _joined(held) for key, held in parts.items()}


def effects_in_pieces(
    pair: ModelPair,
    suites: Sequence[Suite],
    load: Mapping[str, Any],
    executor: Executor,
    *,
    template: str = "plain",
    metrics: Sequence[str] = ("accuracy", "probability", "nll"),
    levels: Sequence[str] = ("component",),
    tolerance: float = 0.01,
    max_gradients: int = 32,
    batch_tokens: int = 1024,
    neurons: int = 32,
    tokens: bool = True,
    memory: int = MEMORY,
) -> dict[str, SuiteEffects]:
    """Effects of the weight path by suite, a shard of items a piece; `attribute`'s numbers for the same `memory`.

    Args:
        pair, suites, load, executor: as for `scores_in_pieces`.
        template, metrics, levels, tolerance, max_gradients, batch_tokens, neurons, tokens: as for `attribute`.
        memory: bytes of a shard's tallies: where the work is cut.
    """
    asked = {
        "template": template, "metrics": list(metrics), "levels": list(levels), "tolerance": tolerance,
        "max_gradients": max_gradients, "batch_tokens": batch_tokens, "neurons": neurons, "tokens": tokens,
        "memory": memory,
    }  # fmt: skip
    work = Work(f"{_HERE}:prepare", f"{_HERE}:attribute_piece", request_of(pair, suites, load, **asked))
    with opened(pair, tuple(levels), _settings(asked), keep_tokens=tokens) as job:
        counts = [len(job.shards(job.rows(suite), memory=memory)) for suite in suites]
        pieces = [(number, shard) for number, count in enumerate(counts) for shard in range(count)]
        parts: dict[int, list[SuiteEffects]] = {}
        for piece, found in zip(pieces, executor.map(work, pieces), strict=True):
            parts.setdefault(piece[0], []).append(_effects(found))
        return {suites[number].name: job.finished(held) for number, held in parts.items()}


def _settings(asked: Mapping[str, Any]) -> PathSettings:
    return PathSettings(
        asked["template"], tuple(asked["metrics"]), {}, asked["tolerance"], asked["max_gradients"],
        batch_tokens=asked["batch_tokens"], neurons=asked["neurons"],
    )  # fmt: skip


def _suite(told: Mapping[str, Any]) -> Suite:
    names = {field.name for field in dataclasses.fields(Item)}
    items = [
        Item(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items() if key in names})
        for one in told["items"]
    ]
    return Suite(told["name"], tuple(items), kind=told["kind"])


def _joined(parts: Sequence[Mapping[str, Any]]) -> SuiteScores:
    """Spans of one suite one after another; rows of fewer choices are filled up."""
    width = max(part["logp"].shape[1] for part in parts)
    first = dict(parts[0])
    for name, value in first.items():
        held = [part[name] for part in parts]
        if isinstance(value, np.ndarray):
            held = [_wider(name, one, width) if one.ndim == 2 else one for one in held]
            first[name] = np.concatenate(held)
        elif isinstance(value, tuple):
            first[name] = tuple(one for part in held for one in part)
        elif isinstance(value, bool):
            first[name] = all(held)
    return SuiteScores(**first)


def _wider(name: str, values: np.ndarray, width: int) -> np.ndarray:
    fill: Any = np.nan if values.dtype.kind == "f" else 0
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)


def _plain(found: SuiteEffects) -> dict[str, Any]:
    told = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    if found.tokens is not None:
        told["tokens"] = {field.name: getattr(found.tokens, field.name) for field in dataclasses.fields(found.tokens)}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in told.items()}


def _effects(told: Mapping[str, Any]) -> SuiteEffects:
    tokens = told["tokens"]
    return SuiteEffects(**(dict(told) | {"tokens": None if tokens is None else TokenEffects(**tokens)}))
