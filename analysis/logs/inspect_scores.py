"""The scores of an Inspect log: one or many values a sample, over epochs, as Inspect itself adds them up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taxlens.analysis.logs.logged_metrics import METRICS, LoggedMetric
from taxlens.analysis.logs.records import LoggedSample
from taxlens.core.errors import ItemError, explain, one_of

_COUNT = "num_instructions"
_WORDS = {"c", "i", "p", "n", "yes", "no", "true", "false", "correct", "incorrect"}


@dataclass(slots=True)
class LoggedScores:
    """The scores of a log as they are read, sample by sample.

    Args:
        wanted: the scorer, or the key of a score, that the user asked for; None: the first scorer, all keys.
        reducers: names of the log's reducers over epochs; the first is read.
    """

    wanted: str | None
    reducers: tuple[str, ...]
    scorers: list[str] = field(default_factory=list)
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)

    def add(self, key: str, sample: Any, file: Path) -> None:
        """Take in one epoch of one sample.

        Raises:
            ItemError: the same epoch of a sample stands in the log twice.
        """
        epochs = self.found.setdefault(key, [])
        if sample.epoch in {epoch for epoch, _ in epochs}:
            rows = [("log", file), ("sample", key), ("epoch", sample.epoch)]
            raise ItemError(explain("a sample is logged twice.", rows, "evaluate again into a new log."))
        if sample.error is not None and not sample.scores:
            self.errors.add(key)
        epochs.append((sample.epoch, dict(sample.scores or {})))
        for name in sample.scores or {}:
            if name not in self.scorers:
                self.scorers.append(name)


@dataclass(frozen=True, slots=True)
class Reduced:
    """Values of every scored sample.

    Attributes:
        values: {sample: {metric: number, or (numerator, denominator)}}.
        metrics: {metric: LoggedMetric}.
        totals: the log's own aggregates, by metric.
        notes: what was chosen or left out.
    """

    values: Mapping[str, Mapping[str, float | tuple[float, float]]]
    metrics: Mapping[str, LoggedMetric]
    totals: Mapping[str, float]
    notes: tuple[str, ...]

    def with_values(self, sample: LoggedSample) -> LoggedSample:
        """The sample with its values."""
        return replace(sample, values=self.values[sample.key])


def scores_of(scores: LoggedScores, header: Any, file: Path) -> Reduced:
    """The values of the chosen scorer, reduced over epochs.

    Raises:
        ItemError: the log has no scores, or none of the name that was asked for; a score is no number.
    """
    chosen, key = _chosen(scores, file, header)
    notes = [f"read scorer {chosen!r} of {', '.join(scores.scorers)}."] if len(scores.scorers) > 1 else []
    if len(scores.reducers) > 1:
        notes.append(f"read reducer {scores.reducers[0]!r} of {', '.join(scores.reducers)}.")
    reduce = _reducer(scores.reducers[0], file)
    raw: dict[str, Any] = {}
    for sample, epochs in scores.found.items():
        given = [found[chosen] for _, found in sorted(epochs, key=lambda e: e[0]) if _is_scored(found.get(chosen))]
        if given:
            raw[sample] = reduce(given).value if len(epochs) > 1 else given[0].value
    values = {sample: _numbers(value, key, chosen, sample, file) for sample, value in raw.items()}
    values = {sample: found for sample, found in values.items() if found}
    left = len(scores.found) - len(values)
    if left:
        notes.append(
            f"{left} of {len(scores.found)} samples have no score ({len(scores.errors)} ended in an error) and are left out."
        )
    if not values:
        rows = [("log", file), ("scorer", chosen), ("samples", len(scores.found)), ("errors", len(scores.errors))]
        raise ItemError(explain("no sample of the log has a score.", rows, "score the log: inspect score LOG"))
    names = [name for name in next(iter(values.values())) if all(name in found for found in values.values())]
    metrics = {name: _metric(name, [found[name] for found in values.values()], header, chosen) for name in names}
    renamed = {sample: {metrics[name].name: found[name] for name in names} for sample, found in values.items()}
    by_name = {metric.name: metric for metric in metrics.values()}
    return Reduced(renamed, by_name, _totals(header, chosen, metrics, scores.reducers[0]), tuple(notes))


def _chosen(scores: LoggedScores, file: Path, header: Any) -> tuple[str, str | None]:
    if not scores.scorers:
        rows = [("log", file), ("status", header.status), ("error", getattr(header.error, "message", "none"))]
        fix = "the run failed: evaluate again." if header.status == "error" else "score the log: inspect score LOG"
        raise ItemError(explain("the samples of the log have no scores.", rows, fix))
    if scores.wanted is None:
        return scores.scorers[0], None
    if scores.wanted in scores.scorers:
        return scores.wanted, None
    keys = {
        str(key): scorer
        for epochs in scores.found.values()
        for _, found in epochs
        for scorer, score in found.items()
        if isinstance(score.value, dict)
        for key in score.value
    }
    if scores.wanted in keys:
        return keys[scores.wanted], scores.wanted
    one_of(scores.wanted, [*scores.scorers, *keys], what=f"scorer in {file.name}:", error=ItemError)
    raise AssertionError  # one_of has raised


def _reducer(name: str, file: Path) -> Any:
    from inspect_ai.scorer._reducer.registry import create_reducers

    try:
        return create_reducers(name)[0]
    except (LookupError, ValueError) as error:
        rows = [("log", file), ("reducer", name)]
        raise ItemError(explain("the log's reducer over epochs is not known to inspect_ai here.", rows)) from error


def _is_scored(score: Any) -> bool:
    return score is not None and not (isinstance(score.value, float) and math.isnan(score.value))


def _numbers(
    value: Any, key: str | None, scorer: str, sample: str, file: Path
) -> dict[str, float | tuple[float, float]]:
    """{name: number} of a score; a score of one value has its scorer's name."""
    if not isinstance(value, dict):
        return {scorer: _number(value, sample, file)}
    found: dict[str, float | tuple[float, float]] = {}
    for name, part in value.items():
        if part is None or (isinstance(part, float) and math.isnan(part)) or (key is not None and name != key):
            continue
        if isinstance(part, list | dict) or (isinstance(part, str) and not _reads(part)):
            continue
        known = METRICS.get(name)
        number = _number(part, sample, file)
        if known is not None and known.form == "ratio":
            found[name] = (number, float(value.get(_COUNT, 1)))
        elif name != _COUNT or key == _COUNT:
            found[name] = number
    return found


def _reads(text: str) -> bool:
    if text.strip().lower() in _WORDS:
        return True
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(value: Any, sample: str, file: Path) -> float:
    from inspect_ai.scorer import value_to_float

    if isinstance(value, bool | int | float) or (isinstance(value, str) and _reads(value)):
        number = float(value_to_float()(value))
        if math.isfinite(number):
            return number
    rows = [("log", file), ("sample", sample), ("value", repr(value)[:80])]
    fix = "choose another scorer, or one key of the score: --variant NAME"
    raise ItemError(explain("a score is no number and no word such as C, I, yes or no.", rows, fix))


def _metric(name: str, values: list[float | tuple[float, float]], header: Any, scorer: str) -> LoggedMetric:
    if isinstance(values[0], tuple):
        return METRICS[name]
    numbers = [value for value in values if isinstance(value, float)]
    if name in METRICS and METRICS[name].form == "mean" and name != scorer:
        return METRICS[name]
    if min(numbers) < 0 or max(numbers) > 1:
        return LoggedMetric(name, unit="the log's own scale")
    if name != scorer:
        return LoggedMetric(name, hit=set(numbers) <= {0.0, 1.0})
    if name in ("f1",):
        return METRICS["f1"]
    return LoggedMetric("accuracy", hit=set(numbers) <= {0.0, 1.0})


def _totals(header: Any, scorer: str, metrics: Mapping[str, LoggedMetric], reducer: str) -> dict[str, float]:
    """The log's own accuracy or mean of each metric; and how many samples it says that it completed."""
    found: dict[str, float] = {}
    if header.results is None:
        return found
    for score in header.results.scores:
        name = score.name if score.name in metrics else scorer
        if (score.scorer != scorer and score.name not in (scorer, *metrics)) or (score.reducer or reducer) != reducer:
            continue
        for wanted in ("accuracy", "mean"):
            if name in metrics and wanted in score.metrics:
                found.setdefault(metrics[name].name, float(score.metrics[wanted].value))
    found["documents"] = float(header.results.completed_samples) / max(header.eval.config.epochs or 1, 1)
    return found
